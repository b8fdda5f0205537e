"""Log-probabilities and entropies of target tokens from hidden states and an output layer, by Triton kernels.

The matrix products are those of PyTorch. One kernel reads each tile of logits once and folds it into the statistics of
its rows; in the backward pass another one reads each recomputed logit once and writes its gradient in the dtype of the
hidden states. A [tokens, vocabulary] tensor never exists. `docs/performance.md` compares the traffic with that of
`chunked_logprobs`, and with a kernel that contains the matrix products, too.
"""

from importlib.util import find_spec
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fireopd.models.output_head import LogitTransform, add_product, aligned, cast_for_autocast, logit_dtype, product

__all__ = ["backward_columns", "forward_tile", "has_triton", "token_logprobs"]


def has_triton() -> bool:
    """Return whether Triton is installed."""
    return find_spec("triton") is not None


def forward_tile(tokens: int, vocabulary: int, chunk_logits: int) -> tuple[int, int]:
    """Return rows and columns of a tile in the forward pass: near-square tiles read the operands the least often."""
    rows = min(tokens, max(isqrt(chunk_logits), chunk_logits // vocabulary))
    return max(1, rows), aligned(chunk_logits // max(1, rows))


def backward_columns(tokens: int, chunk_logits: int) -> int:
    """Return the columns of a tile of all tokens in the backward pass: each gradient of a weight is written once."""
    return aligned(chunk_logits // max(1, tokens))


def token_logprobs(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target_ids: Tensor,
    *,
    temperature: float,
    entropy: bool,
    chunk_logits: int,
    transform: LogitTransform = LogitTransform(),  # noqa: B008 - frozen
) -> tuple[Tensor, Tensor | None]:
    """Return the same as `chunked_logprobs.token_logprobs`, with less memory traffic.

    Arguments and results are those of that function, with dtypes and shapes. The entropies are computed in any case.
    """
    operands = cast_for_autocast(hidden_states, weight, bias)
    logprobs, entropies = _FusedLogprobs.apply(*operands, target_ids, temperature, chunk_logits, transform)
    return logprobs, entropies if entropy else None


class _FusedLogprobs(torch.autograd.Function):
    """Saves the hidden states and two numbers per token for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        temperature: float,
        chunk_logits: int,
        transform: LogitTransform,
    ) -> tuple[Tensor, Tensor]:
        """Loop over tiles of tokens and vocabulary."""
        from fireopd.models import fused_kernels  # needs Triton

        target_ids = target_ids.contiguous()
        tokens, dtype = len(hidden_states), logit_dtype(hidden_states)
        start = (-torch.inf, 0.0, 0.0, torch.nan)
        statistics = tuple(hidden_states.new_full((tokens,), value, dtype=dtype) for value in start)
        rows, columns = forward_tile(tokens, len(weight), chunk_logits)
        for row in range(0, tokens, rows):
            part = slice(row, row + rows)
            for first in range(0, len(weight), columns):
                chunk = slice(first, first + columns)
                offsets = None if bias is None else bias[chunk]
                values = product(hidden_states[part], weight[chunk], offsets, chunk_logits)
                own: Any = tuple(values[part] for values in statistics)
                fused_kernels.fold(values, target_ids[part], own, first, transform, temperature)
        top, mass, moment, target_logits = statistics
        log_mass = mass.log()
        # With e = exp(z - max z): log p = z - max z - log sum(e) and H = log sum(e) - sum(e log e) / sum(e).
        logprobs, entropies = target_logits - top - log_mass, log_mass - moment / mass
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_states, weight, bias, target_ids, top + log_mass, entropies)
        ctx.temperature, ctx.chunk_logits, ctx.transform = temperature, chunk_logits, transform
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None) -> tuple[Tensor | None, ...]:
        """Loop over chunks of the vocabulary."""
        from fireopd.models import fused_kernels

        hidden_states, weight, bias, target_ids, normalizers, entropies = ctx.saved_tensors
        needs_hidden_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dtype = hidden_states.dtype
        grad_hidden_states = torch.zeros_like(hidden_states, dtype=normalizers.dtype) if needs_hidden_states else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.empty_like(bias) if needs_bias else None
        gradients = (grad_logprobs, entropies, grad_entropies)
        columns = backward_columns(len(hidden_states), ctx.chunk_logits)
        for first in range(0, len(weight), columns):
            chunk = slice(first, first + columns)
            offsets = None if bias is None else bias[chunk]
            values = product(hidden_states, weight[chunk], offsets, ctx.chunk_logits)
            given = (values, target_ids, normalizers, *gradients, first, ctx.transform, ctx.temperature, dtype)
            gradient = fused_kernels.to_gradient(*given)
            if grad_hidden_states is not None:
                add_product(grad_hidden_states, gradient, weight[chunk])
            if grad_weight is not None:
                torch.mm(gradient.t(), hidden_states, out=grad_weight[chunk])
            if grad_bias is not None:
                grad_bias[chunk] = gradient.sum(0)
        if grad_hidden_states is not None:
            grad_hidden_states = grad_hidden_states.to(dtype)
        return grad_hidden_states, grad_weight, grad_bias, *[None] * 4
