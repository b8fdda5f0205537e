"""Checkpoints of a run: at each validation or every so many steps, when it is interrupted, and when it ends."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

if TYPE_CHECKING:
    from fireopd.module import FiReOPDModule


class RunCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, with a `last.ckpt` that is always the last: also of a run that was stopped or ended."""

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        """Store the settings.

        Args:
            every_n_train_steps: optimizer steps between two checkpoints; null for one at each validation.
        """
        super().__init__(every_n_train_steps=every_n_train_steps, save_last=True, save_on_exception=True)

    def on_exception(self, trainer: Trainer, pl_module: "FiReOPDModule", exception: BaseException) -> None:
        """Save what there is, and say how to go on."""
        super().on_exception(trainer, pl_module, exception)
        if self.last_model_path:
            rank_zero_info(f"Stopped after step {trainer.global_step}. Go on with --ckpt_path {self.last_model_path}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after the last step too, while the epoch is not yet closed, so that a longer run can go on from it."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        enough = 0 < trainer.max_steps <= trainer.global_step
        if (trainer.is_last_batch or trainer.should_stop or enough) and self.dirpath is not None:
            self.last_model_path = str(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
            trainer.save_checkpoint(self.last_model_path, weights_only=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Leave `last.ckpt` as the last step left it: by now an epoch that was stopped half-way counts as done."""

    def on_train_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Leave it here too, for the same reason."""
