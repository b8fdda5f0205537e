"""Token sampling by inversion of the cumulative distribution."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from fireopd.types import Sampling

__all__ = ["BLOCK_SIZE", "inverse_cdf", "sample", "truncate"]

BLOCK_SIZE = 256
"""Tokens per block; sampling selects a block first, then a token within the block."""


def sample(
    logits: Tensor, sampling: Sampling, uniforms: Tensor, temperatures: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample one token per row by inverting the cumulative distribution.

    Only one block of the cumulative distribution is computed token by token. At temperature 0, the most likely token
    is selected.

    Args:
        logits: float32 [B, V].
        sampling: temperature, top-p and top-k.
        uniforms: float [B]. One random number in [0, 1) per row.
        temperatures: float32 [B]. Temperature of each row, in the place of that of `sampling`; 0 is not allowed.

    Returns:
        int64 [B] token ids, and float32 [B] their log-probabilities in nats under the sampling distribution.
    """
    if temperatures is not None:
        logits = logits / temperatures[:, None]
    elif sampling.greedy:
        return logits.argmax(-1), logits.new_zeros(len(logits))
    elif sampling.temperature != 1:
        logits = logits / sampling.temperature
    log_distribution = truncate(logits, sampling).log_softmax(-1)
    rows, size = torch.arange(len(logits), device=logits.device), min(BLOCK_SIZE, logits.shape[-1])
    probabilities = log_distribution.exp()
    if missing := -logits.shape[-1] % size:
        probabilities = pad(probabilities, (0, missing))
    blocks = probabilities.view(len(logits), -1, size)
    cumulative = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    thresholds = uniforms.double() * cumulative[:, -1]
    block = inverse_cdf(cumulative, thresholds)
    remainders = thresholds - pad(cumulative, (1, 0))[rows, block]
    token_ids = block * size + inverse_cdf(blocks[rows, block].double().cumsum(-1), remainders)
    token_ids = token_ids.clamp(max=logits.shape[-1] - 1)  # out of range only if no logit is finite
    return token_ids, log_distribution[rows, token_ids]


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return float [B, V] logits with -inf for tokens outside the top-k, then outside the top-p of the remainder."""
    if sampling.top_k:
        lowest = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        preceding = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        cut = preceding >= sampling.top_p
        logits = logits.masked_fill(cut.scatter(-1, order, cut), -torch.inf)
    return logits


def inverse_cdf(cumulative: Tensor, values: Tensor) -> Tensor:
    """Return int64 [B], the first index at which cumulative sums exceed a value.

    Values that reach the total by rounding are lowered, so that the index never has probability 0.

    Args:
        cumulative: float64 [B, K]. Cumulative sums.
        values: float64 [B].
    """
    highest = cumulative[:, -1] * (1 - 2**-52)
    indices = torch.searchsorted(cumulative, torch.minimum(values, highest)[:, None], right=True).squeeze(-1)
    return indices.clamp(max=cumulative.shape[-1] - 1)
