"""Log-probabilities and entropies of target tokens from hidden states and an output layer, computed in chunks.

The forward pass loops over chunks of tokens, each with the full vocabulary. The backward pass loops over chunks of the
vocabulary, each with all tokens; it recomputes the logits and turns them into their gradient in place. A
[tokens, vocabulary] tensor never exists.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fireopd.models.output_head import LogitTransform, add_product, aligned, cast_for_autocast, logit_dtype, product

__all__ = ["token_logprobs"]


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
    """Return the log-probabilities of target tokens and the entropies of their distributions.

    For the logits z of one token and p = softmax(z), d log p_c / d z_j = [j = c] - p_j and
    d H / d z_j = -p_j (log p_j + H). Logits in float32 are not rounded to the dtype of hidden states and weight.

    Args:
        hidden_states: float [T, d]. Last hidden states.
        weight: float [V, d]. Weight of the output layer.
        bias: float [V]. Bias of the output layer, or None.
        target_ids: int64 [T]. Target tokens.
        temperature: divisor of the logits.
        entropy: whether to compute the entropies.
        chunk_logits: number of logits in memory at a time.
        transform: scale and soft-cap of the logits, applied before the temperature.

    Returns:
        Two differentiable tensors of shape [T] in nats, in float32 or the higher precision of the inputs. The second
        is None if `entropy` is False.
    """
    operands = cast_for_autocast(hidden_states, weight, bias)
    return _ChunkedLogprobs.apply(*operands, target_ids, temperature, entropy, chunk_logits, transform)


class _ChunkedLogprobs(torch.autograd.Function):
    """Saves the hidden states and two numbers per token for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        temperature: float,
        entropy: bool,
        chunk_logits: int,
        transform: LogitTransform,
    ) -> tuple[Tensor, Tensor | None]:
        """Loop over chunks of tokens."""
        dtype = logit_dtype(hidden_states)
        logprobs, normalizers = (hidden_states.new_empty(len(hidden_states), dtype=dtype) for _ in range(2))
        entropies = torch.empty_like(logprobs) if entropy else None
        size = max(1, chunk_logits // len(weight))
        for start in range(0, len(hidden_states), size):
            chunk = slice(start, start + size)
            logits = transform.apply_(product(hidden_states[chunk], weight, bias, chunk_logits))
            if temperature != 1:
                logits.div_(temperature)
            target_logits = logits.gather(-1, target_ids[chunk, None]).squeeze(-1)
            top = logits.amax(-1, keepdim=True)
            mass = logits.sub_(top).exp_().sum(-1)
            top, log_mass = top.squeeze(-1), mass.log()
            logprobs[chunk], normalizers[chunk] = target_logits - top - log_mass, top + log_mass
            if entropies is not None:
                # With e = exp(z - max z): H = log sum(e) - sum(e log e) / sum(e). In place; entr(0) = 0.
                entropies[chunk] = log_mass + torch.special.entr(logits, out=logits).sum(-1) / mass
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_states, weight, bias, target_ids, normalizers, entropies)
        ctx.temperature, ctx.chunk_logits, ctx.transform = temperature, chunk_logits, transform
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None) -> tuple[Tensor | None, ...]:
        """Loop over chunks of the vocabulary."""
        hidden_states, weight, bias, target_ids, normalizers, entropies = ctx.saved_tensors
        needs_hidden_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dtype = normalizers.dtype
        grad_hidden_states = torch.zeros_like(hidden_states, dtype=dtype) if needs_hidden_states else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.empty_like(bias) if needs_bias else None
        # A chunk of weights that are converted to float32 is no larger than a chunk of logits.
        converted = 0 if hidden_states.dtype == dtype else weight.shape[1]
        size = aligned(ctx.chunk_logits // max(1, len(hidden_states), converted))
        for start in range(0, len(weight), size):
            chunk = slice(start, start + size)
            grad = product(hidden_states, weight[chunk], None if bias is None else bias[chunk], ctx.chunk_logits)
            slope = ctx.transform.slope(ctx.transform.apply_(grad))
            if ctx.temperature != 1:
                grad.div_(ctx.temperature)
            grad.sub_(normalizers[:, None])
            grad = _logprobs_to_gradient(grad, target_ids - start, grad_logprobs, grad_entropies, entropies)
            if ctx.temperature != 1:
                grad.div_(ctx.temperature)
            if ctx.transform != LogitTransform():
                grad.mul_(slope)
            grad = grad.to(hidden_states.dtype)
            if grad_hidden_states is not None:
                add_product(grad_hidden_states, grad, weight[chunk])
            if grad_weight is not None:
                torch.mm(grad.t(), hidden_states, out=grad_weight[chunk])
            if grad_bias is not None:
                grad_bias[chunk] = grad.sum(0)
        if grad_hidden_states is not None:
            grad_hidden_states = grad_hidden_states.to(hidden_states.dtype)
        return grad_hidden_states, grad_weight, grad_bias, *[None] * 5


def _logprobs_to_gradient(
    logprobs: Tensor,
    target_ids: Tensor,
    grad_logprobs: Tensor | None,
    grad_entropies: Tensor | None,
    entropies: Tensor | None,
) -> Tensor:
    """Convert log-probabilities [T, v] of a vocabulary chunk, in place, to the gradient of their logits.

    `target_ids` are relative to the start of the chunk; targets outside the chunk are ignored.
    """
    if grad_entropies is None:
        gradient = logprobs.exp_()
        gradient.mul_(-grad_logprobs[:, None]) if grad_logprobs is not None else gradient.zero_()
    else:
        assert entropies is not None
        probabilities = logprobs.exp()
        # The clamp avoids 0 x infinity for tokens of probability 0.
        gradient = logprobs.clamp_(min=-1e4).add_(entropies[:, None]).mul_(grad_entropies[:, None])
        if grad_logprobs is not None:
            gradient.add_(grad_logprobs[:, None])
        gradient.mul_(probabilities).neg_()
    if grad_logprobs is not None:
        inside = (target_ids >= 0) & (target_ids < gradient.shape[1])
        columns = target_ids.clamp(0, gradient.shape[1] - 1)[:, None]
        gradient.scatter_add_(1, columns, torch.where(inside, grad_logprobs, 0.0)[:, None])
    return gradient
