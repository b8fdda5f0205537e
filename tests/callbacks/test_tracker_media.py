"""Histograms, texts, tables and pages in each tracker. Trackers that are not installed are skipped."""

import json
import math

import pytest
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.callbacks.tracker_media import media_of
from fireopd.training.csv_logger import SafeCSVLogger
from fireopd.training.mlflow_logger import FlatMLFlowLogger

VALUES = {"tokens/weight": torch.tensor([0.5, 1.0, 1.5, 1.5])}
ROWS = [{"task": "math", "before": 0.25, "after": None}, {"task": "code", "before": 0.5, "after": 1.0}]
TEXT = "**kept** <b>\n\n    weights  ▁█"
PAGE = "<!doctype html><title>Step 3</title><p>tokens"


def show_all(logger, tmp_path):
    """Show one of everything at step 3."""
    (tmp_path / "step_000003.html").write_text(PAGE)
    logger.log_metrics({"val/avg_at_k": 0.5, "fire/keep_ratio": 0.8, "fire/keep_ratio/math": 0.7}, 3)
    media = media_of(logger)
    media.layout({"1 Does it learn?": {"accuracy": ["Multiline", ["^val/avg_at_k$"]]}})
    media.histograms(VALUES, 3)
    media.text("trajectories", TEXT, 3)
    media.warning("rollout/finished falls", 3)
    media.table("summary", ROWS, 3)
    media.page("trajectories/page", tmp_path / "step_000003.html", 3)
    logger.finalize("success")


def test_a_logger_of_another_kind_shows_scalars_only(tmp_path):
    seen = {}

    class Scalars(Logger):
        name = version = None

        def log_hyperparams(self, params):
            raise AssertionError

        def log_metrics(self, metrics, step=None):
            seen.update(metrics)

    show_all(Scalars(), tmp_path)
    assert seen["fire/keep_ratio/math"] == 0.7


def test_the_run_folder_keeps_the_warnings(tmp_path):
    show_all(SafeCSVLogger(tmp_path), tmp_path)
    assert json.loads((tmp_path / "warnings.jsonl").read_text()) == {"step": 3, "warning": "rollout/finished falls"}


def test_tensorboard(tmp_path):
    show_all(TensorBoardLogger(tmp_path, name=None, version=""), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (histogram,) = events.Histograms("tokens/weight")
    assert (histogram.step, histogram.histogram_value.num) == (3, 4)
    found = {tag: events.Tensors(f"{tag}/text_summary")[0] for tag in ("trajectories", "health", "summary")}
    texts = {tag: event.tensor_proto.string_val[0].decode() for tag, event in found.items()}
    assert texts["trajectories"] == TEXT
    assert texts["health"] == "rollout/finished falls"
    assert "| math | 0.250 | - |\n| code | 0.500 | 1.000 |" in texts["summary"]
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, project="x")
    logged = []
    log = logger.experiment.log
    logger.experiment.log = lambda data, *rest, **settings: (logged.append(dict(data)), log(data, *rest, **settings))
    alerts = []
    logger.experiment.alert = lambda **alert: alerts.append(alert)
    show_all(logger, tmp_path)
    found = {}
    for data in logged:
        assert data["trainer/global_step"] == 3
        found |= data
    assert found["fire/keep_ratio"] == 0.8
    assert sum(found["tokens/weight"].histogram) == 4
    assert "&lt;b&gt;" in found["trajectories"].html
    assert found["trajectories/page"].html == PAGE
    assert found["summary"].data == [["math", 0.25, None], ["code", 0.5, 1.0]]
    assert alerts[0]["text"] == "rollout/finished falls"
    assert list(tmp_path.rglob("*.wandb")), "written offline"
    logger.experiment.finish()


def test_mlflow(tmp_path):
    pytest.importorskip("mlflow")
    logger = FlatMLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/runs.db", artifact_location=str(tmp_path / "files"))
    show_all(logger, tmp_path)
    run = logger.experiment.get_run(logger.run_id)
    assert run.data.metrics == {"val/avg_at_k": 0.5, "fire/keep_ratio": 0.8, "fire/keep_ratio.math": 0.7}
    folder = tmp_path / "files" / logger.run_id / "artifacts"
    histogram = json.loads((folder / "tokens" / "weight.json").read_text())
    assert sum(row[3] for row in histogram["data"]) == 4
    assert json.loads((folder / "summary.json").read_text())["data"] == [[3, "math", 0.25, None], [3, "code", 0.5, 1.0]]
    assert (folder / "trajectories" / "step_000003.md").read_text() == TEXT
    assert (folder / "trajectories" / "page" / "step_000003.html").read_text() == PAGE
    assert (folder / "health" / "step_000003.md").read_text() == "rollout/finished falls"


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    from fireopd.training.trackio_logger import TrackioLogger

    logger = TrackioLogger(project="x", name="first")
    logger.log_hyperparams({"model.optimizer.lr": 0.1})
    logger.log_metrics({"loss": math.nan}, 2)
    show_all(logger, tmp_path)
    run = trackio.Api().runs("x")[0]
    assert run.config["model.optimizer.lr"] == 0.1
    entries = trackio.sqlite_storage.SQLiteStorage.get_logs("x", "first")
    logs = {key: value for entry in entries for key, value in entry.items()}
    assert logs["fire/keep_ratio"] == 0.8
    assert math.isnan(logs["loss"])
    assert sum(logs["tokens/weight"]["values"]) == 4
    assert logs["trajectories"]["_value"] == TEXT
    assert [alert["text"] for alert in run.alerts()] == ["rollout/finished falls"]
    assert next(iter((tmp_path / "trackio").rglob("*.html"))).read_text() == PAGE
