"""Sampling distribution and sampled responses."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Response", "Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings: the distribution of sampled tokens and of their sampling log-probabilities."""

    temperature: float = 1.0
    """Divides the logits; student and teachers are scored at the same temperature. 0 for greedy decoding."""
    top_p: float = 1.0
    """Nucleus sampling: smallest set of likeliest tokens with at least this probability mass; 1 for all tokens."""
    top_k: int = 0
    """Number of likeliest tokens to sample from; 0 for all tokens."""

    @property
    def greedy(self) -> bool:
        """True for greedy decoding: always the likeliest token, with a log-probability of 0."""
        return self.temperature == 0

    @property
    def truncated(self) -> bool:
        """True if `top_p` or `top_k` exclude tokens: sampling differs from the student's full distribution."""
        return self.top_p < 1 or self.top_k > 0


@dataclass(frozen=True, slots=True)
class Response:
    """A sampled response of the student."""

    tokens: tuple[int, ...]
    """Sampled token ids, including the end-of-sequence token if sampled."""
    logprobs: tuple[float, ...]
    """Log-probability of each token under the sampling distribution, nats."""
    finished: bool
    """False if the response was truncated at the length limit."""
