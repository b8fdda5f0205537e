"""Loggers of a run: the run folder, `metrics.csv` and the settings are the same with any of them."""

import csv
import re
from pathlib import Path

import pytest
from helpers.paths import CONFIGS
from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.callbacks.summary import Summary
from fireopd.cli.main import main
from fireopd.cli.run_loggers import place_loggers, run_loggers
from fireopd.cli.training_cli import SafeTrainer
from fireopd.errors import UserError
from fireopd.training.csv_logger import SafeCSVLogger
from fireopd.training.mlflow_logger import flat_name
from fireopd.training.tensorboard_logger import RunTensorBoardLogger


class Tracker(Logger):
    """Logger of another library, with its folder in the current one by default."""

    name, version = "tracker", 0

    def __init__(self, save_dir=".", project="x"):
        super().__init__()
        self.folder, self.settings, self.metrics = save_dir, {}, {}

    @property
    def save_dir(self):
        return self.folder

    def log_hyperparams(self, params, *args, **kwargs):
        self.settings |= params

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics


HERE = f"{__name__}.Tracker"


def placed(logger, folder):
    settings = Namespace({"fit.trainer.logger": logger})
    found = place_loggers(settings, "fit.trainer.logger", folder)
    assert settings["fit.trainer.logger"] is logger, "the settings that are saved stay as they were"
    return found["fit.trainer.logger"]


def configured(path, **arguments):
    return Namespace(class_path=path, init_args=Namespace(**arguments))


def test_a_logger_writes_into_the_run_folder_unless_it_has_a_place(tmp_path):
    folder = tmp_path / "version_3"
    assert placed(configured(HERE, save_dir="."), folder).init_args.save_dir == str(folder)
    assert placed(configured(HERE, save_dir="/mine"), folder).init_args.save_dir == "/mine"
    several = placed([configured(HERE, save_dir="."), configured(HERE, save_dir="/mine")], folder)
    assert [logger.init_args.save_dir for logger in several] == [str(folder), "/mine"]
    for plain in (True, False, None):
        assert placed(plain, folder) is plain


def test_mlflow_gets_a_database_and_metric_names_that_are_not_folders_of_each_other(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow = configured("lightning.pytorch.loggers.MLFlowLogger", save_dir="./mlruns")
    found = placed(mlflow, tmp_path)
    assert found.class_path == "fireopd.training.mlflow_logger.FlatMLFlowLogger"
    assert found.init_args.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert found.init_args.artifact_location == str(tmp_path / "mlruns")
    own = configured("lightning.pytorch.loggers.MLFlowLogger", save_dir="./mlruns", tracking_uri="sqlite:///own.db")
    assert "artifact_location" not in placed(own, tmp_path).init_args
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    assert "tracking_uri" not in placed(mlflow, tmp_path).init_args
    tags = ["fire/keep_ratio", "fire/keep_ratio/math", "val/avg_at_k", "val/math/avg_at_k", "epoch", "a/b/c/d"]
    names = [flat_name(tag) for tag in tags]
    assert names[:2] == ["fire/keep_ratio", "fire/keep_ratio.math"]
    assert len(set(names)) == len(tags)
    assert not any(f"{name}/" in other for name in names for other in names)


def test_tensorboard_with_the_numbers_of_runs_shares_the_folder(tmp_path):
    path = "lightning.pytorch.loggers.TensorBoardLogger"
    found = placed(configured(path, save_dir=str(tmp_path), name=None, version=None), tmp_path / "version_3")
    assert found.init_args.version == "version_3"
    found = placed(configured(path, save_dir=str(tmp_path), name="x", version=None), tmp_path / "version_3")
    assert found.init_args.version is None


def test_tensorboard_next_to_other_loggers_writes_into_the_run_folder(tmp_path):
    path = f"{RunTensorBoardLogger.__module__}.RunTensorBoardLogger"
    found = placed(configured(path, save_dir=None), tmp_path / "version_3")
    assert found.init_args == Namespace(save_dir=str(tmp_path / "version_3"))
    given = placed(configured(path, save_dir=str(tmp_path)), tmp_path / "version_3")
    assert given.init_args == Namespace(save_dir=str(tmp_path)), "a given folder stays"
    assert RunTensorBoardLogger(**found.init_args.as_dict()).log_dir == str(tmp_path / "version_3")


@pytest.mark.parametrize(
    ("value", "key"),
    [("TensorBoardLogger", "trainer.logger"), ("[TrackioLogger, TensorBoardLogger]", r"trainer.logger\[1\]")],
)
def test_a_logger_without_its_folder_is_named(capsys, value, key):
    with pytest.raises(SystemExit):
        main(["check", f"--config={CONFIGS}/opd.yaml", f"--trainer.logger={value}"])
    assert re.search(key + r"\.save_dir: missing\. Set it, or use RunTensorBoardLogger", capsys.readouterr().err)


def test_a_second_metrics_file_in_the_folder_is_refused(tmp_path):
    run_loggers(CSVLogger(tmp_path), tmp_path / "version_0")
    with pytest.raises(UserError, match="trainer.logger: 'CSVLogger': its metrics.csv would be that of the run"):
        run_loggers(CSVLogger(tmp_path, name=None, version=0), tmp_path / "version_0")


def trainer_of(given, root):
    loggers = run_loggers(given, root / "version_0")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return SafeTrainer(logger=loggers, default_root_dir=root, accelerator="cpu", **quiet)


def test_every_run_has_the_same_folder_and_metrics(tmp_path):
    own = [None, True, False, Tracker(), [Tracker(), Tracker()], TensorBoardLogger(tmp_path / "other"), [Tracker()]]
    for number, given in enumerate(own):
        root = tmp_path / str(number)
        trainer = trainer_of(given, root)
        assert trainer.log_dir == str(root / "version_0")
        for logger in trainer.loggers:
            logger.log_metrics({"fire/keep_ratio": 0.5, "fire/keep_ratio/math": 0.25}, 0)
        with (root / "version_0" / "metrics.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert row == {"fire/keep_ratio": "0.5", "fire/keep_ratio/math": "0.25", "step": "0"}
        first = trainer.loggers[0]
        assert isinstance(first, RunTensorBoardLogger if given in (None, True) else (type(first), SafeCSVLogger)[0])
        assert (list((root / "version_0").glob("events*")) != []) == (given in (None, True))


def test_tensorboard_shows_the_settings_and_no_further_scalar(tmp_path):
    logger = RunTensorBoardLogger(tmp_path / "version_0")
    logger.log_hyperparams({"model.optimizer.lr": 0.1, "model.objective": "ReverseKL", "data.overlap": False})
    logger.log_metrics({"val/avg_at_k": 0.5}, 4)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "version_0"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/avg_at_k")] == [(4, 0.5)]
    assert events.Tags()["scalars"] == ["val/avg_at_k"]
    assert set(events.PluginTagToContent("hparams")) >= {"_hparams_/experiment", "_hparams_/session_start_info"}
    assert "model.objective: ReverseKL" in (tmp_path / "version_0" / "hparams.yaml").read_text()


@pytest.mark.parametrize(("given", "line"), [(True, "tensorboard --logdir {}"), (False, "{}/metrics.csv")])
def test_the_last_line_names_the_curves_that_there_are(tmp_path, capsys, given, line):
    trainer, summary = trainer_of(given, tmp_path), Summary()
    trainer.loggers[-1].log_metrics({"loss": 1.0}, 0)
    summary.folder = Path(trainer.log_dir)
    summary.tasks = {"math": {"student_before": 0.1, "student_after": 0.2, "teacher": None}}
    module = type("Module", (), {"data": type("Data", (), {"validation_responses": 4})})
    summary.teardown(trainer, module, "fit")
    assert capsys.readouterr().out.splitlines()[-1] == line.format(tmp_path / "version_0")
