"""Logger of `metrics.csv` that loses no written row when a run is killed."""

import csv
from pathlib import Path
from typing import cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from fireopd.atomic_files import replacing

__all__ = ["SafeCSVLogger"]


class SafeCSVLogger(CSVLogger):
    """CSV logger that writes each row at once, and adds columns by an atomic replacement of the file."""

    def __init__(self, root: str, version: int | str) -> None:
        """Log to `<root>/version_<n>/metrics.csv`."""
        super().__init__(root, None, version, flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Writer of the file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return cast(ExperimentWriter, self._experiment)


class _Writer(ExperimentWriter):
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as earlier, replacing(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(earlier))
