"""Folder of a run during training: locked, and written on rank 0."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lightning import Trainer

from fireopd.atomic_files import DISK_ERRORS, locked, unwritable, writing
from fireopd.distributed import collectives
from fireopd.errors import UserError
from fireopd.training.run_layout import CONFIG

__all__ = ["run_folder", "write_on_rank_zero", "writing_run"]

KEY = "trainer.default_root_dir"
"""Setting that determines the place of the folder."""


def run_folder(trainer: Trainer) -> Path:
    """Return the folder that a run writes to. Every process must call."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def write_on_rank_zero(trainer: Trainer, write: Callable[[Path], object]) -> None:
    """Call a function with the folder of the run, on rank 0 only. Every process must call.

    Raises:
        UserError: on all processes, if a file cannot be written.
    """
    folder, error = run_folder(trainer), None
    if trainer.is_global_zero:
        try:
            with writing(KEY, folder):
                write(folder)
        except UserError as problem:
            error = problem
    collectives.raise_on_all_ranks(error)


@contextmanager
def writing_run(trainer: Trainer) -> Iterator[None]:
    """Context in which a run writes into its folder, which is created and locked.

    Raises:
        UserError: if the folder cannot be created, another run holds the lock, the folder holds an earlier run, or the
            disk is full.
    """
    folder = run_folder(trainer)
    try:
        with _locked(folder) if trainer.is_global_zero else nullcontext():
            yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise unwritable(KEY, folder, error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    problem, remedy = "another run is writing into this folder", "give another one, or wait for it"
    with locked(KEY, folder, problem, remedy):
        if (folder / CONFIG).exists():
            raise UserError(KEY, str(folder), "it holds an earlier run", "give each run a separate folder")
        yield
