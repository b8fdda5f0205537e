"""The logger of `metrics.csv`: whatever ends a run, all rows that were written before are there."""

import csv
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from fireopd.atomic_files import replacing


class SafeCSVLogger(CSVLogger):
    """Writes each line at once, and gives the file new columns beside it first."""

    def __init__(self, root: str, version: int | str) -> None:
        """Log to `<root>/version_<n>/metrics.csv`."""
        super().__init__(root, None, version, flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment


class _Writer(ExperimentWriter):
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as earlier, replacing(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(earlier))
