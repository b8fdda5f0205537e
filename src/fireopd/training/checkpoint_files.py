"""Checkpoints of runs, files or sharded folders: written atomically, loaded as data and never as code."""

import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from fireopd.distributed import collectives, sharded_checkpoints
from fireopd.errors import UserError
from fireopd.private_apis import dump_checkpoint

__all__ = [
    "BEST",
    "LAST",
    "DirectIO",
    "check",
    "last_checkpoint",
    "read_student",
    "remove",
    "replace",
    "standing",
    "write",
]

METADATA = "meta.pt"
"""Lightning's file of everything but the shards in a sharded checkpoint."""
STUDENT = "student.model."
"""Prefix of the names of the student's tensors."""
LAST = "last.ckpt"
"""Checkpoint to resume from."""
BEST = "best.ckpt"
"""Checkpoint with the best validation."""


class DirectIO(TorchCheckpointIO):
    """Checkpoint IO that writes to the file directly, without copies in memory and in a temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)


def write(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint next to the current one, then replace the current one. Every process must call.

    Files are replaced atomically. A folder is moved aside first; `standing` finds it if the run is killed in between.

    Raises:
        UserError: if it cannot be written; the current checkpoint stays.
    """
    trainer.strategy.checkpoint_io = DirectIO()
    partial = path.with_name(f".{path.name}.partial")
    if trainer.is_global_zero:
        remove(partial)
    trainer.strategy.barrier()
    error = None
    try:
        # Like trainer.save_checkpoint, without its final barrier, where other ranks would wait for a rank that failed.
        trainer.strategy.save_checkpoint(dump_checkpoint(trainer), partial)
    except (OSError, RuntimeError, CheckpointException) as failure:
        error = _unwritten(path, failure)
    try:
        collectives.raise_on_all_ranks(error)
    except UserError:
        remove(partial)
        raise
    if trainer.is_global_zero:
        replace(partial, path)
    trainer.strategy.barrier()


def _unwritten(path: Path, failure: BaseException) -> UserError:
    if isinstance(failure, CheckpointException):
        failure = next(iter(failure.failures.values()))[0]
    while failure.__context__ is not None and not isinstance(failure, OSError):
        failure = failure.__context__  # PyTorch raises a RuntimeError after the OSError of the disk
    reason = str(failure).partition("\n")[0]
    problem = f"a checkpoint could not be written ({reason}); the one before is unchanged"
    return UserError("trainer.default_root_dir", str(path.parent), problem, "free space there, and resume from it")


def replace(new: Path, old: Path) -> None:
    """Replace a file or a folder, which may be missing, by another one."""
    aside = _aside(old)
    if old.is_dir() or (new.is_dir() and old.exists()):
        remove(aside)
        old.rename(aside)
    new.replace(old)
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def standing(path: Path) -> Path:
    """Return the path of a checkpoint, or that of the folder moved aside if `write` was killed between two renames."""
    return _aside(path) if _aside(path).exists() and not path.exists() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def last_checkpoint(root: Path) -> Path:
    """Return the newest last checkpoint of the runs in a folder.

    Raises:
        UserError: if there is no checkpoint.
    """
    places = {standing(folder / LAST) for folder in root.glob("version_*/checkpoints")}
    found = sorted((path for path in places if path.exists()), key=lambda path: path.stat().st_mtime)
    if not found:
        problem = f"no run in {root} has written a checkpoint"
        raise UserError("--ckpt_path", "last", problem, "omit it to start a new run, or give a path")
    return found[-1]


def check(path: Path, *, sharded: bool) -> None:
    """Check that a run can resume from a checkpoint, without loading its tensors.

    Args:
        path: path of the checkpoint.
        sharded: True if the run shards its models.

    Raises:
        UserError: if the checkpoint is missing or unreadable, holds code, or is sharded and the run is not.
    """
    with _readable("--ckpt_path", path):
        if path.is_dir():
            _load(path / METADATA)["fireopd"]
            sharded_checkpoints.check_no_code(path)
        else:
            _load(path)["fireopd"]
    if path.is_dir() and not sharded:
        remedy = "resume with --config configs/hardware/fsdp.yaml, or start from a model that fireopd export writes"
        raise UserError("--ckpt_path", str(path), "it is the checkpoint of a run with sharded models", remedy)


def read_student(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the student's initial model, and the student's tensors, named as in that model.

    Raises:
        UserError: if the checkpoint is missing, holds code, or was written by another program.
    """
    path = standing(path)
    with _readable("CKPT", path):
        if path.is_dir():
            saved, tensors = _load(path / METADATA), sharded_checkpoints.read_state_dict(path)
        else:
            saved = _load(path)
            tensors = saved["state_dict"]
        name = saved["fireopd"]["student"]
    return name, {key.removeprefix(STUDENT): value for key, value in tensors.items() if key.startswith(STUDENT)}


@contextmanager
def _readable(key: str, path: Path) -> Iterator[None]:
    if not path.exists():
        raise UserError(key, str(path), "no such checkpoint", "give one, as in <run>/checkpoints/last.ckpt")
    try:
        yield
    except pickle.UnpicklingError as error:
        problem = "holds more than tensors and plain values, which could be code"
        raise UserError(key, str(path), problem, "give a checkpoint that fireopd fit wrote") from error
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        problem = f"cannot be read as a checkpoint of fireopd ({reason})"
        raise UserError(key, str(path), problem, "give a checkpoint that fireopd fit wrote") from error


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
