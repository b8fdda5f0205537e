"""Collectives over all processes. With a single process, each returns its input."""

import pickle
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from fireopd import private_apis

__all__ = [
    "all_gather_objects",
    "all_ranks_arrive",
    "all_reduce_max",
    "all_reduce_sum",
    "broadcast_object",
    "full_tensor",
    "local_rank",
    "raise_on_all_ranks",
    "rank",
    "world_size",
]


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if world_size() > 1 else 0


def local_rank() -> int:
    """Return the number of lower ranks on this machine, whatever launched the processes. Every rank must call.

    Environment variables for it differ: torchrun and Lightning set `LOCAL_RANK`, SLURM `SLURM_LOCALID`.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")  # host names of containers may repeat
    machine = (socket.gethostname(), boot.read_text() if boot.is_file() else "")
    return all_gather_objects(machine)[: rank()].count(machine)


def broadcast_object(value: Any) -> Any:
    """Return the value of rank 0, any picklable object. Every rank must call."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def all_gather_objects(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Return the values of all ranks, any picklable objects or CPU tensors. Every rank must call.

    Args:
        value: of this rank.
        group: group of all processes; None for the default group. A thread needs a group to itself.
    """
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value, group=group)
    return values


def raise_on_all_ranks(error: Exception | None, group: dist.ProcessGroup | None = None) -> None:
    """Raise on all ranks if one rank has an error, so that no rank hangs in a later collective. Every rank must call.

    A rank with an error raises its own; the others raise the error of the first such rank.
    """
    errors = all_gather_objects(error if world_size() == 1 else _picklable(error), group)
    if error is not None:
        raise error
    for remote_error in errors:
        if remote_error is not None:
            raise remote_error


def _picklable(error: Exception | None) -> Exception | None:
    """Return the error, or a `RuntimeError` with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling a third-party exception can raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def all_ranks_arrive(name: str, timeout: float) -> bool:
    """Return whether all ranks call this with the same name within a timeout in seconds. A name can be used once.

    It uses the key-value store of the process group, so it also returns while other ranks block in a collective.
    """
    if world_size() == 1:
        return True
    store = private_apis.get_default_store()
    store.set(f"{name}/{rank()}", "here")
    try:
        store.wait([f"{name}/{number}" for number in range(world_size())], timedelta(seconds=timeout))
    except dist.DistError:
        return False
    return True


def all_reduce_max(number: int, device: torch.device) -> int:
    """Return the maximum of a number over the ranks. Every rank must call."""
    if world_size() == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks, computed in place. Every rank must call."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the gathered tensor if it is sharded, on the device of the mesh, else the tensor. Every rank must call."""
    if not isinstance(tensor, DTensor):
        return tensor
    moved: Any = tensor.to(tensor.device_mesh.device_type)  # shards may be kept in CPU memory
    whole: Tensor = moved.full_tensor()
    return whole
