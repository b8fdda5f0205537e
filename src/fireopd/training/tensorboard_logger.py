"""TensorBoard logger of a run folder, with the settings of the run on the page of hyperparameters."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from fireopd.training.csv_logger import DeferringLogger

__all__ = ["RunTensorBoardLogger", "quiet_writer_thread"]

METRIC = "val/avg_at_k"
"""Metric next to the settings on the page of hyperparameters."""


class RunTensorBoardLogger(DeferringLogger, TensorBoardLogger):
    """TensorBoard logger of a run folder."""

    def __init__(self, save_dir: str | Path | None = None) -> None:
        """Create.

        Args:
            save_dir: folder of events. Default: the run folder on the command line, elsewhere the working directory.
        """
        folder = Path(save_dir or ".")
        super().__init__(folder.parent, None, folder.name, default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log settings by name. No scalar is logged: the page shows the latest validation of the run."""
        super().log_hyperparams(params, metrics, step)
        values = {
            name: value if isinstance(value, bool | int | float) else str(value) for name, value in params.items()
        }
        for summary in hparams(values, {METRIC: 0.0}):
            self.experiment.file_writer.add_summary(summary)


@contextmanager
def quiet_writer_thread() -> Iterator[None]:
    """Context without the traceback of TensorBoard's thread on a full disk: the next write raises the same error."""
    before = threading.excepthook

    def report(arguments: Any) -> None:
        """Report an exception of a thread, unless it is an error of the disk in TensorBoard's writer."""
        of_writer = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (of_writer and isinstance(arguments.exc_value, OSError)):
            before(arguments)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before
