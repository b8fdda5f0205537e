"""Logger of `metrics.csv`, which every run writes, and loggers that report a full disk between two steps."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from fireopd.atomic_files import replacing

__all__ = ["DeferringLogger", "SafeCSVLogger"]


class DeferringLogger(Logger):
    """Base class of loggers that keep an error of the disk, so that the run can stop at the end of a step.

    The callback `DiskErrors` raises the error on all processes.
    """

    error: OSError | None = None
    """First error of the disk."""

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Context that keeps an error of the disk, also as the cause of another error, as in TensorBoard's logger."""
        try:
            yield
        except Exception as error:
            found = error.__cause__ if isinstance(error.__cause__, OSError) else error
            if not isinstance(found, OSError):
                raise
            self.error = self.error or found

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log scalars."""
        with self.deferring():
            super().log_metrics(metrics, step)  # type: ignore[safe-super] # that of the logger in the subclass

    def finalize(self, status: str) -> None:
        """Write what is pending; after an error, the pending rows are lost.

        Raises:
            OSError: if a run without an earlier error ends with one.
        """
        if self.error is None:
            with self.deferring():
                super().finalize(status)
            if self.error is not None and status == "success":
                raise self.error


class SafeCSVLogger(DeferringLogger, CSVLogger):
    """CSV logger of a run folder: writes each row at once, and replaces the file atomically to add columns."""

    def __init__(self, folder: Path) -> None:
        """Log to `<folder>/metrics.csv`."""
        super().__init__(folder.parent, None, folder.name, flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Writer of the file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return cast(ExperimentWriter, self._experiment)

    def log_hyperparams(self, params: Any = None) -> None:
        """Write nothing: the run folder holds all settings in `config.yaml`."""


class _Writer(ExperimentWriter):
    def save(self) -> None:
        """Append the new rows; on a full disk, remove the part of a row that was written.

        Raises:
            OSError: if a row cannot be written.
        """
        path = Path(self.metrics_file_path)
        size = path.stat().st_size if path.exists() else 0
        try:
            super(ExperimentWriter, self).save()  # without hparams.yaml
        except OSError:
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)  # the part of a row that a full disk has room for
            raise

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as earlier, replacing(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(earlier))
