"""Gradient clipping of models whose shards are on the device of the processes or in CPU memory."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_, get_total_norm

from fireopd.distributed import collectives

__all__ = ["clip_gradients"]

EPSILON = 1e-6
"""Added to the norm, as in `clip_grad_norm_`."""


@torch.no_grad()
def clip_gradients(
    parameters: Sequence[Parameter], max_norm: float, device: torch.device, *, offloaded: bool
) -> Tensor:
    """Scale gradients in place to a norm of at most `max_norm`, and return their norm before, a scalar.

    Every rank must call.

    Args:
        parameters: parameters, sharded or not.
        max_norm: largest norm; infinity to compute the norm only.
        device: device of this process.
        offloaded: whether the shards are in CPU memory, where the backends of GPUs have no collectives: only the sum of
            squares is then exchanged.
    """
    if not offloaded:
        return collectives.full_tensor(clip_grad_norm_(parameters, max_norm))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    shards = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    squares = get_total_norm(shards).square().to(device)
    norm = collectives.all_reduce_sum(squares).sqrt().cpu()
    scale = (max_norm / (norm + EPSILON)).clamp(max=1.0)
    for shard in shards:
        shard.mul_(scale)
    return norm
