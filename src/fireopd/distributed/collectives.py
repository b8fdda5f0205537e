"""Bringing the rows of all ranks together. With one process, everything here hands back what it was given."""

import pickle
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.tensor import DTensor


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process."""
    return dist.get_rank() if world_size() > 1 else 0


def broadcast_object(value: Any) -> Any:
    """Return what rank 0 holds, any plain value. Every rank must call."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def all_gather_objects(value: Any) -> list[Any]:
    """Return what each rank holds, any plain value or tensors on the CPU. Every rank must call."""
    if world_size() == 1:
        return [value]
    held = [None] * world_size()
    dist.all_gather_object(held, value)
    return held


def raise_on_all_ranks(error: Exception | None) -> None:
    """Raise on all ranks what any of them has to raise, lest they wait for it. Every rank must call."""
    errors = all_gather_objects(error if world_size() == 1 else _portable(error))
    if error is not None:
        raise error
    for raised in errors:
        if raised is not None:
            raise raised


def _portable(error: Exception | None) -> Exception | None:
    """Return an error as it is, or, if it cannot go from process to process, what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever it is that somebody's exception raises here
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def all_ranks_arrive(place: str, seconds: float) -> bool:
    """Return whether every rank comes to a place of this name within some seconds of each other, at its first time.

    Asked of the store that the ranks met at, so that it can be asked while some of them wait for each other elsewhere.
    """
    if world_size() == 1:
        return True
    store = _get_default_store()
    store.set(f"{place}/{rank()}", "here")
    try:
        store.wait([f"{place}/{number}" for number in range(world_size())], timedelta(seconds=seconds))
    except dist.DistError:
        return False
    return True


def all_reduce_max(number: int, device: torch.device) -> int:
    """Return the largest of the numbers that the ranks hold. Every rank must call."""
    if world_size() == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum of a scalar over the ranks. Every rank must call."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be sharded. Every rank must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
