"""Histograms, texts, tables and pages in the trackers of a run; scalars reach every tracker through Lightning."""

from collections.abc import Callable
from contextlib import nullcontext

from lightning import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from fireopd.callbacks.tracker_kinds import (
    Media,
    MLFlowMedia,
    RunFolderMedia,
    TensorBoardMedia,
    TrackioMedia,
    WandbMedia,
)
from fireopd.training.csv_logger import DeferringLogger, SafeCSVLogger
from fireopd.training.trackio_logger import TrackioLogger

__all__ = ["media_of", "show", "tensorboard_loggers"]

KINDS: dict[type[Logger], type[Media]] = {
    SafeCSVLogger: RunFolderMedia,
    TensorBoardLogger: TensorBoardMedia,
    WandbLogger: WandbMedia,
    MLFlowLogger: MLFlowMedia,
    TrackioLogger: TrackioMedia,
}
"""Media by class of the logger."""


def media_of(logger: Logger) -> Media:
    """Return the media of a logger; those of a logger of another kind show nothing."""
    kinds = (media for kind, media in KINDS.items() if isinstance(logger, kind))
    return next(kinds, Media)(logger)


def show(trainer: Trainer, action: Callable[[Media], object]) -> None:
    """Call a function with the media of each logger, on rank 0.

    An error of the disk is kept by the default logger; see `DeferringLogger`.
    """
    for logger in trainer.loggers if trainer.is_global_zero else []:
        with logger.deferring() if isinstance(logger, DeferringLogger) else nullcontext():
            action(media_of(logger))


def tensorboard_loggers(trainer: Trainer) -> list[TensorBoardLogger]:
    """Return the TensorBoard loggers of a run on rank 0; none on other ranks."""
    return [x for x in trainer.loggers if isinstance(x, TensorBoardLogger)] if trainer.is_global_zero else []
