"""Log-probabilities and entropies of tokens from hidden states and an output layer, some of the logits at a time.

Forward, some tokens meet the whole vocabulary; backward, all tokens meet some of the vocabulary, whose logits are
computed again and turned into their gradient where they stand. Neither ever holds a [tokens, vocabulary] tensor.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def token_logprobs(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    chosen: Tensor,
    *,
    temperature: float,
    entropy: bool,
    chunk_logits: int,
) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities of tokens, and the entropies of the distributions that they were drawn from.

    Of the logits z of one token, p = softmax(z): d log p_c / d z_j = [j = c] - p_j, d H / d z_j = -p_j (log p_j + H).

    Args:
        states: float [T, d]. Last hidden states.
        weight: float [V, d]. Of the output layer.
        bias: float [V], or none.
        chosen: int64 [T]. The tokens.
        temperature: divides the logits.
        entropy: whether the entropies are wanted.
        chunk_logits: logits that are held at once.

    Returns:
        float [T] each, nats, differentiable, in float32 at least; None for entropies that are not wanted.
    """
    if torch.is_autocast_enabled(states.device.type):
        computed = torch.get_autocast_dtype(states.device.type)
        states, weight, bias = states.to(computed), weight.to(computed), None if bias is None else bias.to(computed)
    return _Likelihoods.apply(states, weight, bias, chosen, temperature, entropy, chunk_logits)


class _Likelihoods(torch.autograd.Function):
    """Keeps hidden states and two numbers a token for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chosen: Tensor,
        temperature: float,
        entropy: bool,
        chunk_logits: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Take some tokens at a time."""
        precise = torch.promote_types(states.dtype, torch.float32)
        logprobs, normalizers = (states.new_empty(len(states), dtype=precise) for _ in range(2))
        entropies = torch.empty_like(logprobs) if entropy else None
        size = max(1, chunk_logits // len(weight))
        for start in range(0, len(states), size):
            here = slice(start, start + size)
            logits = linear(states[here], weight, bias).to(precise)
            if temperature != 1:
                logits.div_(temperature)
            own = logits.gather(-1, chosen[here, None]).squeeze(-1)
            top = logits.amax(-1, keepdim=True)
            mass = logits.sub_(top).exp_().sum(-1)
            top, log_mass = top.squeeze(-1), mass.log()
            logprobs[here], normalizers[here] = own - top - log_mass, top + log_mass
            if entropies is not None:
                # With e = exp(z - max z): H = log sum(e) - sum(e log e) / sum(e); entr(0) = 0, and all in place.
                entropies[here] = log_mass + torch.special.entr(logits, out=logits).sum(-1) / mass
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(states, weight, bias, chosen, normalizers, entropies)
        ctx.temperature, ctx.chunk_logits = temperature, chunk_logits
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logprobs: Tensor | None, of_entropies: Tensor | None) -> tuple[Tensor | None, ...]:
        """Take some of the vocabulary at a time."""
        states, weight, bias, chosen, normalizers, entropies = ctx.saved_tensors
        for_states, for_weight, for_bias = ctx.needs_input_grad[:3]
        precise = normalizers.dtype
        grad_states = torch.zeros_like(states, dtype=precise) if for_states else None
        grad_weight = torch.empty_like(weight) if for_weight else None
        grad_bias = torch.empty_like(bias) if for_bias else None
        size = max(1, ctx.chunk_logits // max(1, len(states)))
        for start in range(0, len(weight), size):
            here = slice(start, start + size)
            part = linear(states, weight[here], None if bias is None else bias[here]).to(precise)
            if ctx.temperature != 1:
                part.div_(ctx.temperature)
            part = _gradient(part.sub_(normalizers[:, None]), chosen - start, of_logprobs, of_entropies, entropies)
            part = part.div_(ctx.temperature).to(states.dtype) if ctx.temperature != 1 else part.to(states.dtype)
            if grad_states is not None:
                _add_product(grad_states, part, weight[here])
            if grad_weight is not None:
                torch.mm(part.t(), states, out=grad_weight[here])
            if grad_bias is not None:
                grad_bias[here] = part.sum(0)
        return None if grad_states is None else grad_states.to(states.dtype), grad_weight, grad_bias, *[None] * 4


def _gradient(
    logprobs: Tensor, chosen: Tensor, of_logprobs: Tensor | None, of_entropies: Tensor | None, entropies: Tensor | None
) -> Tensor:
    """Turn log-probabilities [T, v] of some of the vocabulary into the gradient of their logits, in their own memory.

    `chosen` counts from the first of them; what lies outside is not among them.
    """
    if of_entropies is None:
        gradient = logprobs.exp_()
        gradient.mul_(-of_logprobs[:, None]) if of_logprobs is not None else gradient.zero_()
    else:
        assert entropies is not None
        mass = logprobs.exp()
        gradient = logprobs.clamp_(min=-1e4).add_(entropies[:, None]).mul_(of_entropies[:, None])  # not 0 x infinity
        if of_logprobs is not None:
            gradient.add_(of_logprobs[:, None])
        gradient.mul_(mass).neg_()
    if of_logprobs is not None:
        among = (chosen >= 0) & (chosen < gradient.shape[1])
        place = chosen.clamp(0, gradient.shape[1] - 1)[:, None]
        gradient.scatter_add_(1, place, torch.where(among, of_logprobs, 0.0)[:, None])
    return gradient


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to a sum of more precision than they have, without rounding the product first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        total.add_(torch.mm(a, b, out_dtype=total.dtype))
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))
