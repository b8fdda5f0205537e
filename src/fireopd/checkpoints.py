"""Reading the checkpoints of runs: plain files and the folders of sharded ones, as data and never as code."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from fireopd.errors import UserError

METADATA = "meta.pt"
"""What Lightning writes beside the shards of a sharded checkpoint."""
STUDENT = "student.model."
"""What the names of the student's tensors begin with."""


def last_checkpoint(root: Path) -> Path:
    """Return the checkpoint that was written last by a run under a folder.

    Raises:
        UserError: if there is none.
    """
    found = sorted(root.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        problem = f"no run in {root} has left a checkpoint"
        raise UserError("--ckpt_path", "last", problem, "leave it out to start anew, or give a path")
    return found[-1]


def read_student(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the model that a run's student began as, and the student's tensors, named as in that model.

    Raises:
        UserError: if there is no such checkpoint, if it cannot be read as data, or if it is of another program.
    """
    if not path.exists():
        raise UserError("CKPT", str(path), "no such checkpoint", "give one, as in <run>/checkpoints/last.ckpt")
    try:
        if path.is_dir():
            saved, tensors = _load(path / METADATA), _shards(path)
        else:
            saved = _load(path)
            tensors = saved["state_dict"]
        name = saved["fireopd"]["student"]
    except pickle.UnpicklingError as error:
        problem = "holds more than tensors and plain values, which could be code"
        raise UserError("CKPT", str(path), problem, "give a checkpoint that fireopd fit wrote") from error
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        problem = f"cannot be read as a checkpoint of fireopd ({reason})"
        raise UserError("CKPT", str(path), problem, "give a checkpoint that fireopd fit wrote") from error
    return name, {key.removeprefix(STUDENT): value for key, value in tensors.items() if key.startswith(STUDENT)}


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _shards(folder: Path) -> dict[str, Tensor]:
    """Put the shards of the model together, in this process alone; optimizer states are left where they are."""
    reader = FileSystemReader(folder)
    names = {name for name in reader.read_metadata().state_dict_metadata if name.startswith("state_dict.")}
    tensors: dict[str, Any] = {}
    _load_state_dict(tensors, reader, planner=_EmptyStateDictLoadPlanner(keys=names), no_dist=True)
    return tensors["state_dict"]
