"""Recordings of scored rollouts, which `fireopd replay` reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.training.recordings import vocabulary_digest, write_scored
from fireopd.training.run_folder import write_on_rank_zero
from fireopd.types.signals import ENTROPIES

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["RolloutRecorder"]


class RolloutRecorder(Callback):
    """Callback that writes `rollouts/step_<n>.safetensors`, the batch of the step after n optimizer steps."""

    def __init__(self, every_n_steps: int = 10) -> None:
        """Store the settings.

        Args:
            every_n_steps: batches from one file to the next.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def setup(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Add the signals of a recording to those that the run computes."""
        pl_module.extra_signals |= ENTROPIES | {"teacher_logprobs"}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the batch.

        Raises:
            UserError: if it cannot be written.
        """
        scored = outputs["batch"]

        def write(folder: Path) -> None:
            """Write the batch below the folder of the run."""
            file = folder / "rollouts" / f"step_{scored.student_version:06d}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_scored(file, scored, pl_module.student_name, vocabulary_digest(pl_module.data.tokenizer))

        if batch_idx % self.every_n_steps == 0:
            write_on_rank_zero(trainer, write)
