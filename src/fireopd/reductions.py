"""Sums, means and maxima over masked tensors: what is off the mask is never read, not even multiplied by zero."""

import torch
from torch import Tensor


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
