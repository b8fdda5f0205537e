"""`metrics.csv` while a run writes it, and loggers on a full disk."""

import csv
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger

from fireopd.callbacks.disk_errors import DiskErrors
from fireopd.errors import UserError
from fireopd.training import csv_logger
from fireopd.training.tensorboard_logger import RunTensorBoardLogger


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def written(tmp_path):
    """Return a logger with one row, and its file."""
    logger = csv_logger.SafeCSVLogger(tmp_path / "version_0")
    logger.log_metrics({"loss": 1.5}, 0)
    return logger, Path(logger.log_dir) / "metrics.csv"


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


def test_what_ends_the_rewriting_leaves_the_file_as_it_was(written, monkeypatch):
    logger, path = written
    before = path.read_bytes()

    class Killed(csv.DictWriter):
        def writerows(self, rows):
            raise KeyboardInterrupt

    monkeypatch.setattr(csv, "DictWriter", Killed)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({"other": 1.0}, 1)
    assert path.read_bytes() == before


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_whole_rows_and_ends_the_run_before_the_next_step(written, tmp_path, monkeypatch):
    logger, path = written
    before = path.read_bytes()

    class Full(csv.DictWriter):
        def writerows(self, rows):
            self.writer.writerow(["0.5"])  # half of the row
            full()

    monkeypatch.setattr(csv, "DictWriter", Full)
    logger.log_metrics({"loss": 1.0}, 1)
    assert path.read_bytes() == before
    logger.finalize("failed")
    trainer = SimpleNamespace(loggers=[logger], is_global_zero=True, log_dir=logger.log_dir, default_root_dir=tmp_path)
    module = SimpleNamespace(device="cpu")
    with pytest.raises(UserError, match=r"version_0': cannot be written \(No space left on device\)"):
        DiskErrors().on_train_batch_start(trainer, module, None, 1)
    DiskErrors().on_train_batch_start(trainer_without_errors(tmp_path), module, None, 1)


def trainer_without_errors(folder):
    return SimpleNamespace(loggers=[csv_logger.SafeCSVLogger(folder / "x"), CSVLogger(folder)])


def test_a_full_disk_at_the_end_is_an_error_unless_the_run_failed_already(tmp_path, monkeypatch):
    logger = csv_logger.SafeCSVLogger(tmp_path / "version_0")
    monkeypatch.setattr(CSVLogger, "finalize", full)
    with pytest.raises(OSError, match="No space left"):
        logger.finalize("success")
    other = csv_logger.SafeCSVLogger(tmp_path / "version_1")
    other.finalize("failed")
    assert other.error.errno == errno.ENOSPC


def test_an_error_of_the_disk_is_found_behind_that_of_tensorboards_logger(tmp_path, monkeypatch):
    logger = RunTensorBoardLogger(tmp_path / "version_0")
    monkeypatch.setattr(type(logger.experiment), "add_scalar", full)
    logger.log_metrics({"loss": 1.0}, 0)
    assert logger.error.errno == errno.ENOSPC
    with pytest.raises(ValueError, match="other"), logger.deferring():
        raise ValueError("other")
