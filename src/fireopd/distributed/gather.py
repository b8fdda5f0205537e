"""All-gather of scored batches and of rows of tensors."""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from fireopd.distributed.collectives import all_gather_objects, all_reduce_max, rank, world_size
from fireopd.types import ScoredBatch

__all__ = ["gather_batch", "gather_rows"]


def gather_batch(batch: ScoredBatch) -> tuple[ScoredBatch, slice]:
    """Return the global batch, concatenated in rank order, and the slice of this rank's rows.

    The number and the length of rows may differ between ranks. Every rank must call.
    """
    if world_size() == 1:
        return batch, slice(0, len(batch.teachers))
    described = all_gather_objects((batch.teachers, batch.tasks, batch.sources is not None))
    counts = [len(teachers) for teachers, _, _ in described]
    width = all_reduce_max(batch.tokens.shape[1], batch.tokens.device)
    start = sum(counts[: rank()])
    sources = None
    if any(mixed for _, _, mixed in described):  # on some ranks, the student may have sampled all tokens
        sources = _gather_rows(batch.authors, counts, width)
    gathered = replace(
        batch,
        tokens=_gather_rows(batch.tokens, counts, width),
        response_mask=_gather_rows(batch.response_mask, counts, width),
        groups=_gather_rows(batch.groups, counts, width),
        finished=_gather_rows(batch.finished, counts, width),
        signals={name: _gather_rows(batch.signals[name], counts, width) for name in sorted(batch.signals)},
        teachers=tuple(name for teachers, _, _ in described for name in teachers),
        tasks=tuple(name for _, tasks, _ in described for name in tasks),
        sources=sources,
        staleness=None if batch.staleness is None else _gather_rows(batch.staleness, counts, width),
    )
    return gathered, slice(start, start + counts[rank()])


def gather_rows(*tensors: Tensor) -> tuple[list[Tensor], slice]:
    """Return tensors [N, ...] of all ranks, concatenated in rank order, and the slice of this rank's rows.

    Every rank must call with the same number of tensors [B, ...]. Number of rows and width may differ between ranks;
    narrower rows are padded with zeros on the right.
    """
    counts = all_gather_objects(len(tensors[0]))
    start = sum(counts[: rank()])
    if world_size() == 1:
        return list(tensors), slice(0, counts[0])
    width = all_reduce_max(max(tensor.shape[1] for tensor in tensors if tensor.ndim == 2), tensors[0].device)
    return [_gather_rows(tensor, counts, width) for tensor in tensors], slice(start, start + counts[rank()])


def _gather_rows(values: Tensor, counts: list[int], width: int) -> Tensor:
    """Return the rows of all ranks; each rank pads to the largest row count and width, as all-gather requires."""
    padding = [0, max(counts) - len(values)]
    if values.ndim == 2:
        padding = [0, width - values.shape[1], *padding]
    dtype = torch.uint8 if values.dtype == torch.bool else values.dtype
    padded = pad(values.to(dtype), padding).contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(values.dtype)
