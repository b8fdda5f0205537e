"""Spearman rank correlation, in double precision.

torchmetrics sums the ranks of equal values in int32, which overflows for some 75,000 tokens with the same weight.
"""

import torch
from torch import Tensor

__all__ = ["average_ranks", "rank_correlation"]


def average_ranks(values: Tensor) -> Tensor:
    """Return float64 [T]: ranks of [T] values, starting at 1; ties get their mean rank."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[place]


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Return the Spearman correlation of two [T] tensors; None if one of them is constant or T = 0."""
    ranks = torch.stack([average_ranks(first), average_ranks(second)])
    centred = ranks - ranks.mean(-1, keepdim=True) if ranks.shape[1] else ranks
    scale = centred.norm(dim=-1).prod()
    return (centred[0] @ centred[1] / scale).item() if scale > 0 else None
