"""Errors of the disk that loggers meet: the run stops between two steps, with a checkpoint."""

from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.distributed import collectives
from fireopd.training.csv_logger import DeferringLogger
from fireopd.training.run_folder import write_on_rank_zero

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["DiskErrors"]


class DiskErrors(Callback):
    """Callback that ends a run whose curves cannot be written. `fireopd fit` adds it to every run."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: "FiReOPDModule", batch: Any, batch_idx: int) -> None:
        """Raise the error of a logger.

        Raises:
            UserError: on all processes, if a logger of rank 0 could not write.
        """
        loggers = [logger for logger in trainer.loggers if isinstance(logger, DeferringLogger)]
        error = next((logger.error for logger in loggers if logger.error is not None), None)

        def report(folder: Any) -> None:
            if error is not None:
                raise error

        if collectives.all_reduce_max(int(error is not None), pl_module.device):
            write_on_rank_zero(trainer, report)
