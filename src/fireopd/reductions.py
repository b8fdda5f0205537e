"""Masked reductions, group standardisation and KL divergence.

Values off the mask never enter a result: they are masked by `torch.where`, so NaN and infinity there have no effect.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "SMALLEST_DEVIATION",
    "group_mean",
    "kl",
    "lowest",
    "maximum",
    "mean",
    "min_max",
    "quantile",
    "row_mean",
    "row_median",
    "row_top",
    "standardized",
    "top",
    "total",
]

SMALLEST_DEVIATION = 1e-6
"""Added to standard deviations, so that nearly equal values do not get large scores."""


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of float [N, L] `values` over bool [N, L] `mask`, a scalar."""
    return torch.where(mask, values, 0.0).sum()


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of float [N, L] `values` over bool [N, L] `mask`, a scalar; 0 for an empty mask."""
    return total(values, mask) / mask.sum().clamp(min=1)


def maximum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum of float [N, L] `values` over bool [N, L] `mask`, a scalar; 0 for an empty mask."""
    return torch.where(mask, values, -torch.inf).max() if mask.any() else values.new_zeros(())


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N]: the mean of each row of [N, L] `values` over its mask; 0 for rows with an empty mask."""
    return torch.where(mask, values, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def row_median(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N]: the median of each row of [N, L] `values` over its mask; 0 for rows with an empty mask.

    The mean of the two middle values if their number is even.
    """
    ordered, last = torch.where(mask, values, torch.inf).sort(-1).values, (mask.sum(-1) - 1).clamp(min=0)
    middle = torch.stack([last // 2, (last + 1) // 2], -1)
    return torch.where(mask.any(-1), ordered.gather(-1, middle).mean(-1), 0.0)


def quantile(values: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Return the quantile of float [N, L] `values` over bool [N, L] `mask`, a scalar; 0 for an empty mask.

    Linear interpolation, without the size limit of `torch.quantile`.

    Args:
        values: float [N, L].
        mask: bool [N, L].
        fraction: fraction of the values below the quantile, in [0, 1].
    """
    ordered = values[mask].sort().values
    if len(ordered) == 0:
        return values.new_zeros(())
    position = fraction * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return torch.where(low == high, low, low + (position - math.floor(position)) * (high - low))


def top(values: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Return bool [N, L]: True for the largest fraction, in (0, 1], of the values over the mask; ties included."""
    return mask & (values >= quantile(values, mask, 1 - fraction))


def lowest(values: Tensor, mask: Tensor, number: int) -> Tensor:
    """Return bool [N, L]: True for the smallest `number` >= 1 of the values over the mask; ties included."""
    ordered = values[mask].sort().values
    if len(ordered) == 0:
        return torch.zeros_like(mask)
    return mask & (values <= ordered[min(number, len(ordered)) - 1])


def row_top(values: Tensor, mask: Tensor, numbers: Tensor) -> Tensor:
    """Return bool [N, L]: True for the largest values of each row over its mask, ties included.

    Args:
        values: float [N, L].
        mask: bool [N, L].
        numbers: int64 [N]. Number of values to choose in each row; at least 1 and at most all of them are chosen.
    """
    ordered = torch.where(mask, values, -torch.inf).sort(-1, descending=True).values
    last = numbers.clamp(min=1).minimum(mask.sum(-1)).clamp(min=1) - 1
    return mask & (values >= ordered.gather(-1, last[:, None]))


def min_max(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N, L]: values scaled to [0, 1] over the mask, 0 off the mask; all 0 if they are equal."""
    low, high = -maximum(-values, mask), maximum(values, mask)
    return torch.where(mask & (high > low), (values - low) / (high - low), 0.0)


def standardized(values: Tensor, groups: Tensor) -> Tensor:
    """Return float [N]: (value - mean) / standard deviation within each group of int64 [N] `groups`.

    0 for groups of equal values, and for non-finite values, which the statistics ignore.
    """
    scores = torch.zeros_like(values)
    for group in groups.unique():
        rows = (groups == group) & values.isfinite()
        finite = values[rows].double()
        if len(finite) > 1 and finite.max() > finite.min():
            scores[rows] = ((finite - finite.mean()) / (finite.std() + SMALLEST_DEVIATION)).to(values.dtype)
    return scores


def group_mean(values: Tensor, groups: Tensor) -> Tensor:
    """Return float [N]: for each row, the mean of float [N] `values` over its group of int64 [N] `groups`."""
    _, group, sizes = groups.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(sizes), dtype=torch.float64, device=values.device).index_add(0, group, values.double())
    return (sums / sizes)[group].to(values.dtype)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return float [T]: KL(p || q) in nats of log-distributions [T, V]; tokens with p = 0 contribute 0."""
    mass = p.exp()
    return (mass * torch.where(mass > 0, p - q, 0.0)).sum(-1)
