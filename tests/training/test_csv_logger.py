"""`metrics.csv` while a run writes it."""

import csv
from pathlib import Path

import pytest

from fireopd.training import csv_logger


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_come_without_the_loss_of_a_row(tmp_path):
    logger = csv_logger.SafeCSVLogger(tmp_path / "version_3")
    logger.log_metrics({"loss": 1.5}, 0)
    logger.log_metrics({"loss": 1.0, "val": 0.5}, 1)
    logger.log_metrics({"val": 0.75}, 2)
    logger.finalize("success")
    path = tmp_path / "version_3" / "metrics.csv"
    assert [(row["step"], row["loss"], row["val"]) for row in rows(path)] == [
        ("0", "1.5", ""),
        ("1", "1.0", "0.5"),
        ("2", "", "0.75"),
    ]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


def test_what_ends_the_rewriting_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    logger = csv_logger.SafeCSVLogger(tmp_path / "version_0")
    logger.log_metrics({"loss": 1.5}, 0)
    path = Path(logger.log_dir) / "metrics.csv"
    before = path.read_bytes()

    class Killed(csv.DictWriter):
        def writerows(self, rows):
            raise KeyboardInterrupt

    monkeypatch.setattr(csv, "DictWriter", Killed)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({"other": 1.0}, 1)
    assert path.read_bytes() == before
