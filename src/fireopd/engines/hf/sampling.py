"""Drawing one token for each row from the distribution that a model's logits give."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from fireopd.types import Sampling

BLOCK = 256
"""Tokens of a block; a block is drawn first, then one of its tokens."""


def sample(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by inverting the cumulative distribution, of which only one block is computed token by token.

    At temperature 0, take the likeliest token.

    Args:
        logits: float32 [B, V].
        sampling: what is made of them.
        uniforms: float [B]. In [0, 1), one for each row.

    Returns:
        int64 [B] token ids, and float32 [B] their log-probabilities in nats under the distribution that was drawn from.
    """
    if sampling.greedy:
        return logits.argmax(-1), logits.new_zeros(len(logits))
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    log_distribution = truncate(logits, sampling).log_softmax(-1)
    every, size = torch.arange(len(logits), device=logits.device), min(BLOCK, logits.shape[-1])
    probabilities = log_distribution.exp()
    if missing := -logits.shape[-1] % size:
        probabilities = pad(probabilities, (0, missing))
    blocks = probabilities.view(len(logits), -1, size)
    cumulative = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    drawn = uniforms.double() * cumulative[:, -1]
    block = first_beyond(cumulative, drawn)
    inside = drawn - pad(cumulative, (1, 0))[every, block]
    chosen = block * size + first_beyond(blocks[every, block].double().cumsum(-1), inside)
    chosen = chosen.clamp(max=logits.shape[-1] - 1)  # where nothing is finite
    return chosen, log_distribution[every, chosen]


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return float [B, V] logits with -inf for the tokens that top-k, and then top-p of what it leaves, cut off."""
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        cut = before >= sampling.top_p
        logits = logits.masked_fill(cut.scatter(-1, order, cut), -torch.inf)
    return logits


def first_beyond(cumulative: Tensor, values: Tensor) -> Tensor:
    """Return int64 [B], the first place where float64 [B, K] is beyond [B], or, by rounding, reaches its last value."""
    below = cumulative[:, -1] * (1 - 2**-52)
    places = torch.searchsorted(cumulative, torch.minimum(values, below)[:, None], right=True).squeeze(-1)
    return places.clamp(max=cumulative.shape[-1] - 1)
