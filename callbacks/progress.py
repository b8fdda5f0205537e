"""Progress bars of a run: loss, reverse KL, keep ratio and speed, and the current part of a step."""

import time
from typing import TYPE_CHECKING, cast

from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import TaskID

from fireopd.progress import set_listener

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["Progress"]

SHOWN = {
    "train/loss": "loss",
    "train/reverse_kl": "kl",
    "fire/keep_ratio": "keep",
    "train/tokens_per_s": "tokens/s",
    "val/avg_at_k": "avg@k",
}
"""Short names of the metrics in the bar."""
LONG = 2.0
"""Seconds after which a part of a step gets a separate bar; shorter parts would flicker."""
PAUSE = 0.1
"""Seconds between two updates of the bar."""


class Progress(RichProgressBar):
    """Lightning's rich progress bar with short names, and a second bar for the current part of a step."""

    def __init__(self) -> None:
        """Create without a part in progress."""
        self.part: TaskID | None = None
        self.began = self.updated = 0.0
        super().__init__()

    @property
    def total_train_batches(self) -> int | float:
        """Training batches of the epoch, or those of it until `max_steps`."""
        total = self.trainer.num_training_batches
        module = cast("FiReOPDModule", self.trainer.lightning_module)
        if self.trainer.max_steps < 0 or module is None:
            return total
        left = -(-(self.trainer.max_steps - self.trainer.global_step) // module.budgets.updates)
        return min(total, self.trainer.fit_loop.epoch_loop.batch_progress.current.completed + max(0, left))

    def setup(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Start listening to progress reports."""
        super().setup(trainer, pl_module, stage)
        if self.is_enabled:
            set_listener(self.note)

    def teardown(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Stop listening to progress reports."""
        set_listener(None)
        super().teardown(trainer, pl_module, stage)

    def note(self, what: str, finished: int, total: int) -> None:
        """Show the progress of a part of a step."""
        now = time.monotonic()
        if finished == 0:
            self.began = now
        over = finished >= total
        if self.progress is None or self._progress_stopped or (now - self.updated < PAUSE and not over):
            return
        self.updated = now
        visible = now - self.began > LONG and not over
        if self.part is None and visible:
            self.part = self._add_task(total, what)
        if self.part is not None:
            self.progress.update(self.part, description=what, completed=finished, total=total, visible=visible)

    def get_metrics(self, trainer: Trainer, pl_module: "FiReOPDModule") -> dict[str, int | str | float]:
        """Return the latest values by short name."""
        latest = trainer.callback_metrics
        return {short: f"{latest[name].item():.3g}" for name, short in SHOWN.items() if name in latest}

    def _get_train_description(self, current_epoch: int) -> str:
        """Return the label of the bar; a run of one epoch, or of a number of steps, does not count epochs."""
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 1:
            return super()._get_train_description(current_epoch)
        return f"{'Training':{len(self.validation_description)}}"  # a constant width, which avoids flicker

    def _reset_progress_bar_ids(self) -> None:
        super()._reset_progress_bar_ids()
        self.part = None
