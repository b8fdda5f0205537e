"""Folder of a run: `version_<n>` in the trainer's `default_root_dir`, locked while the run writes into it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lightning import Trainer

from fireopd.atomic_files import DISK_ERRORS, locked, unwritable, writing
from fireopd.distributed import collectives
from fireopd.errors import UserError

__all__ = ["next_folder", "run_folder", "run_folders", "write_on_rank_zero", "writing_run"]

KEY = "trainer.default_root_dir"
"""Setting that determines the place of the folder."""
NAME = re.compile(r"version_(\d+)")
"""Name of the folder of a run."""
CONFIG = "config.yaml"
"""File of the run's settings, which the command line writes."""
WARNINGS = "warnings.jsonl"
"""File of the warnings about the run, one JSON object with `step` and `warning` per line."""


def run_folders(root: Path) -> list[Path]:
    """Return the folders of all runs in a folder, in the order of their numbers."""
    found = {path: NAME.fullmatch(path.name) for path in root.glob("version_*") if path.is_dir()}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name.partition("_")[2]))


def next_folder(root: Path) -> Path:
    """Return the folder of a new run, which does not exist yet."""
    folders = run_folders(root)
    return root / f"version_{int(folders[-1].name.partition('_')[2]) + 1 if folders else 0}"


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
