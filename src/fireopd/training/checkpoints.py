"""The checkpoints of runs, files and the folders of sharded ones: written whole, read as data and never as code."""

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

METADATA = "meta.pt"
"""What Lightning writes beside the shards of a sharded checkpoint."""
STUDENT = "student.model."
"""What the names of the student's tensors begin with."""
LAST = "last.ckpt"
"""The checkpoint that a run goes on from."""
BEST = "best.ckpt"
"""The checkpoint that was best in validation."""


class DirectIO(TorchCheckpointIO):
    """Writes where it is told; Lightning's own holds a second copy in memory and a third in the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)


def write(trainer: Trainer, path: Path) -> None:
    """Write beside the checkpoint that is there, and take its place once all is written. Every process must call.

    A file takes the place of another in one go. Of folders, the one that is there has to be moved aside first: a kill
    just then leaves it under the name that `standing` knows.

    Raises:
        UserError: if it cannot be written; what was there stays.
    """
    trainer.strategy.checkpoint_io = DirectIO()
    partial = path.with_name(f".{path.name}.partial")
    if trainer.is_global_zero:
        remove(partial)
    trainer.strategy.barrier()
    error = None
    try:
        # What trainer.save_checkpoint does, but for its last line, at which the others would wait for one that failed.
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
        failure = failure.__context__  # PyTorch's own complaint comes after that of the disk
    reason = str(failure).partition("\n")[0]
    problem = f"a checkpoint could not be written ({reason}); the one before is as it was"
    return UserError("trainer.default_root_dir", str(path.parent), problem, "free space there, and go on from it")


def replace(new: Path, old: Path) -> None:
    """Put a file or a folder in the place of another, or of none."""
    aside = _aside(old)
    if old.is_dir() or (new.is_dir() and old.exists()):
        remove(aside)
        old.rename(aside)
    new.replace(old)
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def standing(path: Path) -> Path:
    """Return where a checkpoint is: its own place, or, where a kill came between two renames, the one aside."""
    return _aside(path) if _aside(path).exists() and not path.exists() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def last_checkpoint(root: Path) -> Path:
    """Return the checkpoint that was written last by a run under a folder.

    Raises:
        UserError: if there is none.
    """
    places = {standing(folder / LAST) for folder in root.glob("version_*/checkpoints")}
    found = sorted((path for path in places if path.exists()), key=lambda path: path.stat().st_mtime)
    if not found:
        problem = f"no run in {root} has left a checkpoint"
        raise UserError("--ckpt_path", "last", problem, "leave it out to start anew, or give a path")
    return found[-1]


def check(path: Path, *, sharded: bool) -> None:
    """Read as much of a checkpoint as says whether a run can go on from it.

    Args:
        path: of the checkpoint.
        sharded: whether the run shards its models.

    Raises:
        UserError: if there is none, or if it cannot be read, or not as data, or not by such a run.
    """
    with _readable("--ckpt_path", path):
        if path.is_dir():
            _load(path / METADATA)["fireopd"]
            sharded_checkpoints.check_no_code(path)
        else:
            _load(path)["fireopd"]
    if path.is_dir() and not sharded:
        remedy = "go on as it began, with --config configs/hardware/fsdp.yaml, or start from what fireopd export makes"
        raise UserError("--ckpt_path", str(path), "it is that of a run with sharded models", remedy)


def read_student(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the model that a run's student began as, and the student's tensors, named as in that model.

    Raises:
        UserError: if there is no such checkpoint, if it cannot be read as data, or if it is of another program.
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
