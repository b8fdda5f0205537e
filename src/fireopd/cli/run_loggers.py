"""Loggers of a run: those of its configuration, placed into the run folder, and that of `metrics.csv`."""

import os
from collections.abc import Iterable
from importlib import import_module
from inspect import signature
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from fireopd.errors import UserError
from fireopd.training.csv_logger import SafeCSVLogger
from fireopd.training.mlflow_logger import FlatMLFlowLogger
from fireopd.training.tensorboard_logger import RunTensorBoardLogger

__all__ = ["place_loggers", "run_loggers"]


def place_loggers(settings: Namespace, key: str, folder: Path) -> Namespace:
    """Return the settings of a run in which loggers write below the run folder, unless they have another `save_dir`.

    Args:
        settings: settings of the run, which stay as they are.
        key: key of the loggers.
        folder: folder of the run; the default of a logger's `save_dir` is relative to it.
    """
    placed, given = settings.clone(), settings.get(key)
    if isinstance(given, Namespace):
        placed[key] = _place(given, folder)
    elif isinstance(given, list):
        placed[key] = [_place(logger, folder) for logger in given]
    return placed


def run_loggers(given: Logger | Iterable[Logger] | bool | None, folder: Path) -> list[Logger]:
    """Return the loggers of a run: the given ones, by default TensorBoard, and always that of `metrics.csv`.

    Args:
        given: value of `trainer.logger`.
        folder: folder of the run.

    Raises:
        UserError: if one of the given loggers writes another `metrics.csv` into the folder.
    """
    if given is None or given is True:
        own: list[Logger] = [RunTensorBoardLogger(folder)]
    elif given is False:
        own = []
    else:
        own = [given] if isinstance(given, Logger) else list(given)
    for logger in own:
        if isinstance(logger, CSVLogger) and Path(logger.log_dir).resolve() == folder.resolve():
            problem = "its metrics.csv would be that of the run folder, which every run writes"
            raise UserError("trainer.logger", type(logger).__name__, problem, "leave it out, or set another save_dir")
    return [*own, SafeCSVLogger(folder)]


def _place(settings: Namespace, folder: Path) -> Namespace:
    """Return the settings of a logger with the run folder in its `save_dir`.

    A TensorBoard logger that numbers the folders of runs, as `default_root_dir` does, gets the number of the run.
    """
    module, _, name = settings.class_path.rpartition(".")
    kind = getattr(import_module(module), name)
    arguments = settings.get("init_args", Namespace()).clone()
    parameters = signature(kind).parameters
    parameter = parameters.get("save_dir")
    if parameter is not None and arguments.get("save_dir") == parameter.default:
        arguments["save_dir"] = str(folder / (parameter.default or ""))
    if issubclass(kind, TensorBoardLogger | CSVLogger) and "version" in parameters and arguments.get("version") is None:
        root = Path(arguments["save_dir"], arguments.get("name") or "")
        if root.resolve() == folder.parent.resolve():
            arguments["version"] = folder.name
    placed = settings.clone()
    placed["init_args"] = arguments
    if kind is MLFlowLogger:
        if arguments.get("tracking_uri") is None and "MLFLOW_TRACKING_URI" not in os.environ:
            # By default a database: MLflow refuses new file stores.
            arguments["tracking_uri"] = f"sqlite:///{folder.resolve()}/mlflow.db"
            arguments["artifact_location"] = arguments.get("artifact_location") or str(folder.resolve() / "mlruns")
        placed["class_path"] = f"{FlatMLFlowLogger.__module__}.{FlatMLFlowLogger.__name__}"
    return placed
