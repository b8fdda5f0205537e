"""The progress bar of a run: loss, reverse KL, keep ratio and speed."""

from typing import TYPE_CHECKING

from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar

if TYPE_CHECKING:
    from fireopd.module import FiReOPDModule

SHOWN = {
    "train/loss": "loss",
    "train/reverse_kl": "kl",
    "fire/keep_ratio": "keep",
    "train/tokens_per_s": "tokens/s",
    "val/avg_at_k": "avg@k",
}
"""What is shown, and how it is called in the bar."""


class Progress(RichProgressBar):
    """Lightning's rich progress bar with names that fit on one line."""

    def get_metrics(self, trainer: Trainer, pl_module: "FiReOPDModule") -> dict[str, int | str | float]:
        """Return the latest values by their short names."""
        latest = trainer.callback_metrics
        return {short: f"{latest[name].item():.3g}" for name, short in SHOWN.items() if name in latest}
