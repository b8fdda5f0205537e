"""Checkpoints of runs, files or sharded folders: found, checked, and loaded as data, never as code."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from fireopd.atomic_files import is_locked, remove
from fireopd.distributed import sharded_checkpoints
from fireopd.errors import UserError
from fireopd.training.checkpoint_integrity import METADATA, RUN, CorruptError, check_types, load_data, verify

__all__ = [
    "BEST",
    "LAST",
    "check",
    "clean",
    "last_checkpoint",
    "read_run",
    "read_student",
    "standing",
]

STUDENT = "student.model."
"""Prefix of the names of the student's tensors."""
LAST = "last.ckpt"
"""Checkpoint to resume from."""
BEST = "best.ckpt"
"""Checkpoint with the best validation."""


def standing(path: Path) -> Path:
    """Return the path of a checkpoint, or that of the folder moved aside if a write was killed between two renames."""
    return _aside(path) if _aside(path).exists() and not path.exists() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def clean(root: Path) -> None:
    """Remove what killed runs in a folder left half-written."""
    for folder in root.glob("version_*/checkpoints"):
        if not is_locked(folder.parent):
            for partial in folder.glob(".*.partial"):
                remove(partial)


def last_checkpoint(root: Path) -> Path:
    """Return the last checkpoint of the newest run in a folder: the one with the largest number in its checkpoint.

    Neither the times of files nor the names of copied folders matter. Of equal numbers, the later step counts.

    Raises:
        UserError: if there is no checkpoint, or none that can be read.
    """
    places = sorted({standing(folder / LAST) for folder in root.glob("version_*/checkpoints")})
    found = [path for path in places if path.exists()]
    if not found:
        problem = f"no run in {root} has written a checkpoint"
        raise UserError("--ckpt_path", "last", problem, "omit it to start a new run, or give a path")
    return max(found, key=_age)


def _age(path: Path) -> tuple[int, int]:
    """Return the number of the run and the step of a checkpoint."""
    saved = read_run(path)
    name = str(saved[RUN].get("run", path.parent.parent.name))
    return int(name.rpartition("_")[2]) if name.rpartition("_")[2].isdecimal() else -1, saved["global_step"]


def read_run(path: Path) -> dict[str, Any]:
    """Return a checkpoint with the types that a resume needs; the tensors of a folder are not read.

    Raises:
        UserError: if the checkpoint is missing, holds code, or was written by another program.
    """
    with _readable("--ckpt_path", path):
        saved = load_data(path / METADATA if path.is_dir() else path)
        if path.is_dir():
            sharded_checkpoints.check_no_code(path)
        check_types(saved, sharded=path.is_dir())
    return cast(dict[str, Any], saved)


def check(path: Path, *, sharded: bool, whole: bool = True) -> None:
    """Check that a run can resume from a checkpoint.

    Args:
        path: path of the checkpoint.
        sharded: True if the run shards its models.
        whole: read it once and compare it with its checksums.

    Raises:
        UserError: if the checkpoint is missing, unreadable or corrupt, holds code, belongs to a run that is still
            running, or is sharded and the run is not.
    """
    read_run(path)
    with _readable("--ckpt_path", path):
        if whole:
            verify(path)
    if is_locked(path.parent.parent):
        problem = "the run that writes it is still running"
        raise UserError("--ckpt_path", str(path), problem, "wait for its end, or stop it")
    if path.is_dir() and not sharded:
        remedy = "resume with --config configs/hardware/fsdp.yaml, or start from a model that fireopd export writes"
        raise UserError("--ckpt_path", str(path), "it is the checkpoint of a run with sharded models", remedy)


def read_student(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the student's initial model, and the student's tensors, named as in that model.

    Raises:
        UserError: if the checkpoint is missing or corrupt, holds code, or was written by another program.
    """
    path = standing(path)
    with _readable("CKPT", path):
        verify(path)
        saved = load_data(path / METADATA if path.is_dir() else path)
        tensors = sharded_checkpoints.read_state_dict(path) if path.is_dir() else saved["state_dict"]
        student = {key.removeprefix(STUDENT): value for key, value in tensors.items() if key.startswith(STUDENT)}
        if not student or not isinstance(saved[RUN]["student"], str):
            raise ValueError("it holds no student")
    return saved[RUN]["student"], student


@contextmanager
def _readable(key: str, path: Path) -> Iterator[None]:
    if not path.exists():
        raise UserError(key, str(path), "no such checkpoint", "give one, as in <run>/checkpoints/last.ckpt")
    try:
        yield
    except CorruptError as error:
        problem = f"it is corrupt ({error})"
        raise UserError(key, str(path), problem, "give another checkpoint, or a copy of this one") from error
    except pickle.UnpicklingError as error:
        problem = "holds more than tensors and plain values, which could be code"
        raise UserError(key, str(path), problem, "give a checkpoint that fireopd fit wrote") from error
    except UserError:
        raise
    except Exception as error:  # a file can hold anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        problem = f"cannot be read as a checkpoint of fireopd ({reason})"
        raise UserError(key, str(path), problem, "give a checkpoint that fireopd fit wrote") from error
