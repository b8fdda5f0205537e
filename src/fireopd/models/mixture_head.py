"""Means of several models' distributions over the whole vocabulary, from their last hidden states and output heads.

The hidden states of the models are concatenated, so that a mixture is one head for all that reads the distributions of
a teacher. Models of one family pad their vocabulary to different multiples: a token that a model lacks has the
probability 0 under this model. An arithmetic mean has the tokens of the largest vocabulary, a geometric mean those of
the smallest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from fireopd.models.distributions import TeacherHead

__all__ = ["Mean", "MixtureHead", "score_with_head"]

Mean = Literal["arithmetic", "geometric"]
"""Mean of distributions: sum of w_i p_i, or product of p_i^w_i divided by its sum over the vocabulary."""


@dataclass(frozen=True, slots=True, eq=False)
class MixtureHead:
    """Output head of a mixture of models."""

    heads: tuple[TeacherHead, ...]
    """Output head of each model."""
    weights: tuple[float, ...]
    """Weight of each model, greater than 0; the sum is 1."""
    mean: Mean = "arithmetic"
    """Mean of the distributions."""
    limit: int | None = None
    """Number of tokens that the distribution is restricted to; None for all."""

    @property
    def size(self) -> int:
        """Number V of tokens of the mixture."""
        return self._own_size if self.limit is None else min(self.limit, self._own_size)

    @property
    def _own_size(self) -> int:
        return (max if self.mean == "arithmetic" else min)(head.size for head in self.heads)

    @property
    def width(self) -> int:
        """Size d of the concatenated hidden states."""
        return sum(head.width for head in self.heads)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the concatenated hidden states, the highest precision of the models."""
        return reduce(torch.promote_types, (head.dtype for head in self.heads))

    def join(self, hidden_states: Sequence[Tensor]) -> Tensor:
        """Return [T, d] of the hidden states of each model, [T, d_i]."""
        return torch.cat([states.to(self.dtype) for states in hidden_states], dim=-1)

    def first(self, size: int) -> MixtureHead:
        """Return the head of the first `size` tokens of the vocabulary."""
        return self if size >= self.size else replace(self, limit=size)

    def log_distribution(self, hidden_states: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities [T, V] of the mean of the models' distributions at a temperature."""
        parts = hidden_states.split([head.width for head in self.heads], dim=-1)
        total: Tensor | None = None
        for head, weight, states in zip(self.heads, self.weights, parts, strict=True):
            own = head.log_distribution(states.to(head.dtype), temperature)
            if self.mean == "arithmetic":
                own = pad(own, (0, self._own_size - own.shape[-1]), value=-torch.inf).add_(math.log(weight))
                total = own if total is None else torch.logaddexp(total, own)
            else:
                own = own[..., : self._own_size] * weight
                total = own if total is None else total.add_(own)
        assert total is not None
        if self.size < total.shape[-1]:
            total = total[..., : self.size]
        elif self.mean == "arithmetic":
            return total
        return total.log_softmax(-1)


@torch.no_grad()
def score_with_head(
    head: TeacherHead, hidden_states: Tensor, target_ids: Tensor, temperature: float, chunk_logits: int
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of target tokens, and entropies of their distributions, float [T] each, in nats.

    Args:
        head: output head.
        hidden_states: float [T, d]. Last hidden states.
        target_ids: int64 [T]. Target tokens, of the head's vocabulary.
        temperature: divisor of the logits of each model.
        chunk_logits: number of logits of a model in memory at a time.
    """
    found = []
    size = max(1, chunk_logits // head.size)
    for states, targets in zip(hidden_states.split(size), target_ids.split(size), strict=True):
        distribution = head.log_distribution(states, temperature)
        logprobs = distribution.gather(-1, targets[:, None]).squeeze(-1)
        found.append((logprobs, torch.special.entr(distribution.exp_()).sum(-1)))
    if not found:
        empty = hidden_states.new_zeros(0, dtype=torch.float32)
        return empty, empty
    logprobs, entropies = (torch.cat(values) for values in zip(*found, strict=True))
    return logprobs, entropies
