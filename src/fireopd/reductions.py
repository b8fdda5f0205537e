"""Sums, means and maxima over masked tensors: what is off the mask is never read, not even multiplied by zero."""

import math

import torch
from torch import Tensor

SMALLEST_DEVIATION = 1e-6
"""Added to standard deviations, so that values which hardly differ do not have great scores."""


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of float [N, L] `values` where bool [N, L] `mask` holds, as a scalar."""
    return torch.where(mask, values, 0.0).sum()


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of float [N, L] `values` over bool [N, L] `mask` as a scalar; 0 where the mask is empty."""
    return total(values, mask) / mask.sum().clamp(min=1)


def maximum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum of float [N, L] `values` over bool [N, L] `mask` as a scalar; 0 where the mask is empty."""
    return torch.where(mask, values, -torch.inf).max() if mask.any() else values.new_zeros(())


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N]: the mean of each row of [N, L] `values` over its mask; 0 for a row whose mask is empty."""
    return torch.where(mask, values, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def quantile(values: Tensor, mask: Tensor, share: float) -> Tensor:
    """Return the value below which a share in [0, 1] of float [N, L] `values` over bool [N, L] `mask` lies, a scalar.

    Interpolated linearly, for any number of values (`torch.quantile` has a limit); 0 where the mask is empty.
    """
    ordered = values[mask].sort().values
    if len(ordered) == 0:
        return values.new_zeros(())
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return torch.where(low == high, low, low + (place - math.floor(place)) * (high - low))


def top(values: Tensor, mask: Tensor, share: float) -> Tensor:
    """Return bool [N, L]: which values over the mask are its largest, a share in (0, 1]; ties stay together."""
    return mask & (values >= quantile(values, mask, 1 - share))


def min_max(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N, L]: 0 at the smallest of the values over the mask, 1 at the largest; all 0 if they are equal."""
    low, high = -maximum(-values, mask), maximum(values, mask)
    return torch.where(mask & (high > low), (values - low) / (high - low), 0.0)


def standardized(values: Tensor, groups: Tensor) -> Tensor:
    """Return float [N]: (value - mean) / standard deviation over each group of int64 [N] `groups`.

    0 where all of a group are equal, and for values that are not finite, which have no part in the statistics.
    """
    scores = torch.zeros_like(values)
    for group in groups.unique():
        rows = (groups == group) & values.isfinite()
        own = values[rows].double()
        if len(own) > 1 and own.max() > own.min():
            scores[rows] = ((own - own.mean()) / (own.std() + SMALLEST_DEVIATION)).to(values.dtype)
    return scores


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return float [T]: KL(p || q) in nats of log-distributions [T, V]; what p rules out counts 0."""
    mass = p.exp()
    return (mass * torch.where(mass > 0, p - q, 0.0)).sum(-1)
