"""Triton kernels between the matrix products of `fused_logprobs`: softmax statistics of logits, and their gradient.

One program reads one row of a tile of logits. The arithmetic is in the dtype of the tile: float32, or float64 if the
hidden states have it. This module needs Triton, which PyTorch installs on machines with GPUs.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fireopd.models.output_head import LogitTransform

__all__ = ["fold", "to_gradient"]

BLOCK = 4096
"""Logits that a program reads at a time."""
WARPS = 8
"""Warps of a program: 16 logits per thread."""


def fold(
    values: Tensor,
    target_ids: Tensor,
    statistics: tuple[Tensor, Tensor, Tensor, Tensor],
    first: int,
    transform: LogitTransform,
    temperature: float,
) -> None:
    """Fold a tile of logits z into the running statistics of its rows, in place. Each logit is read once.

    Args:
        values: float [T, v], contiguous. Values of the output layer, before transformation and temperature.
        target_ids: int64 [T]. Target tokens.
        statistics: float [T] each: m = max z; s = sum exp(z - m); sum exp(z - m) (z - m); z of the target. Start with
            minus infinity, 0 and 0; the last is set by the tile that contains the target.
        first: token of the first column.
        transform: scale and soft-cap.
        temperature: divisor of the logits.
    """
    if not values.numel():
        return
    settings = _constants(values, transform, temperature)
    with torch.cuda.device_of(values):
        _fold[(len(values),)](values, target_ids, *statistics, first, values.shape[1], **settings)


def to_gradient(
    values: Tensor,
    target_ids: Tensor,
    normalizers: Tensor,
    grad_logprobs: Tensor | None,
    entropies: Tensor | None,
    grad_entropies: Tensor | None,
    first: int,
    transform: LogitTransform,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return the gradient [T, v] of the values of the output layer in a dtype. Each value is read once.

    Args:
        values: float [T, v], contiguous. Values of the output layer; overwritten if `dtype` is theirs.
        target_ids: int64 [T]. Target tokens.
        normalizers: float [T]. Logarithm of the sum of the exponentials of the logits.
        grad_logprobs: float [T]. Gradient of the log-probabilities, or None.
        entropies: float [T]. Entropies, or None.
        grad_entropies: float [T]. Gradient of the entropies, or None.
        first: token of the first column.
        transform: scale and soft-cap.
        temperature: divisor of the logits.
        dtype: dtype of the result.
    """
    gradient = values if dtype == values.dtype else torch.empty_like(values, dtype=dtype)
    if not values.numel():
        return gradient
    zero = torch.zeros_like(normalizers)
    grad_logprobs, grad_entropies, entropies = (
        zero if given is None else given.contiguous() for given in (grad_logprobs, grad_entropies, entropies)
    )
    rows, width = values.shape
    settings = _constants(values, transform, temperature)
    tensors = (values, gradient, target_ids, normalizers, grad_logprobs, entropies, grad_entropies)
    with torch.cuda.device_of(values):
        _to_gradient[(rows, triton.cdiv(width, settings["BLOCK"]))](*tensors, first, width, **settings)
    return gradient


def _constants(values: Tensor, transform: LogitTransform, temperature: float) -> dict[str, Any]:
    """Return what the kernels are compiled for."""
    block = min(BLOCK, triton.next_power_of_2(values.shape[1]))
    names = {"SCALE": float(transform.scale), "CAP": transform.cap, "TEMPERATURE": float(temperature)}
    return {**names, "BLOCK": block, "num_warps": WARPS}


@triton.jit
def _tanh(x: tl.tensor) -> tl.tensor:
    """Return tanh(x). Near 0 the exponential cancels, and the series is exact to float32."""
    tail = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - tail) / (1.0 + tail)
    square = x * x
    near = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0))))
    return tl.where(tl.abs(x) < 0.2, near, tl.where(x < 0, -far, far))


@triton.jit
def _transformed(values: tl.tensor, SCALE: tl.constexpr, CAP: tl.constexpr) -> tl.tensor:  # noqa: N803
    """Return the logits before the temperature."""
    if SCALE != 1.0:
        values = values * SCALE
    if CAP is not None:
        values = CAP * _tanh(values / CAP)
    return values


@triton.jit
def _fold(
    values: tl.tensor,
    target_ids: tl.tensor,
    tops: tl.tensor,
    masses: tl.tensor,
    moments: tl.tensor,
    target_logits: tl.tensor,
    first: tl.tensor,
    width: tl.tensor,
    SCALE: tl.constexpr,  # noqa: N803
    CAP: tl.constexpr,  # noqa: N803
    TEMPERATURE: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0).to(tl.int64)
    values += row * width
    top, mass, moment = tl.load(tops + row), tl.load(masses + row), tl.load(moments + row)
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < width
        logits = _transformed(tl.load(values + columns, mask=inside, other=0.0), SCALE, CAP) / TEMPERATURE
        logits = tl.where(inside, logits, -float("inf"))
        larger = tl.maximum(top, tl.max(logits, axis=0))
        base = tl.where(larger == -float("inf"), 0.0, larger)  # as long as all logits of the row are -inf
        exponentials = tl.exp(logits - base)
        shift = top - base
        decay = tl.exp(shift)
        # exp(-inf) x -inf is 0: tokens of probability 0, and the empty sum.
        moment = decay * moment + tl.where(mass > 0, decay * mass * shift, 0.0)
        moment += tl.sum(tl.where(exponentials > 0, exponentials * (logits - base), 0.0), axis=0)
        mass = decay * mass + tl.sum(exponentials, axis=0)
        top = larger
    tl.store(tops + row, top)
    tl.store(masses + row, mass)
    tl.store(moments + row, moment)
    column = tl.load(target_ids + row) - first
    inside = (column >= 0) & (column < width)
    target = tl.load(values + column, mask=inside, other=0.0)
    tl.store(target_logits + row, _transformed(target, SCALE, CAP) / TEMPERATURE, mask=inside)


@triton.jit
def _to_gradient(
    values: tl.tensor,
    gradients: tl.tensor,
    target_ids: tl.tensor,
    normalizers: tl.tensor,
    grad_logprobs: tl.tensor,
    entropies: tl.tensor,
    grad_entropies: tl.tensor,
    first: tl.tensor,
    width: tl.tensor,
    SCALE: tl.constexpr,  # noqa: N803
    CAP: tl.constexpr,  # noqa: N803
    TEMPERATURE: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    capped = _transformed(tl.load(values + row * width + columns, mask=inside, other=0.0), SCALE, CAP)
    logprobs = capped / TEMPERATURE - tl.load(normalizers + row)
    grad_logprob, grad_entropy = tl.load(grad_logprobs + row), tl.load(grad_entropies + row)
    # d log p_c / d z_j = [j = c] - p_j and d H / d z_j = -p_j (log p_j + H); the maximum avoids 0 x infinity.
    slope = grad_logprob + grad_entropy * (tl.maximum(logprobs, -1e4) + tl.load(entropies + row))
    gradient = -tl.exp(logprobs) * slope
    gradient += tl.where(columns == tl.load(target_ids + row) - first, grad_logprob, 0.0)
    gradient = gradient * (SCALE / TEMPERATURE)
    if CAP is not None:
        gradient = gradient * (1.0 - (capped / CAP) * (capped / CAP))
    tl.store(gradients + row * width + columns, gradient.to(gradients.dtype.element_ty), mask=inside)
