"""Sampling distribution and sampled responses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that responses are drawn from, and that their sampling log-probabilities describe."""

    temperature: float = 1.0
    """Divides the logits. Student and teachers are scored at the same one. 0 for the likeliest token, always."""
    top_p: float = 1.0
    """The smallest set of likeliest tokens with this much probability is drawn from; 1 for all tokens."""
    top_k: int = 0
    """This many likeliest tokens are drawn from; 0 for all tokens."""

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn: every token is the likeliest, with a log-probability of 0."""
        return self.temperature == 0

    @property
    def truncated(self) -> bool:
        """Whether tokens are left out, so that the student's own log-probabilities describe another distribution."""
        return self.top_p < 1 or self.top_k > 0


@dataclass(frozen=True, slots=True)
class Response:
    """What the student wrote."""

    tokens: tuple[int, ...]
    """Sampled token ids, the end-of-sequence token included where there is one."""
    logprobs: tuple[float, ...]
    """Log-probability of each of them under the distribution it was sampled from, nats."""
    finished: bool
    """False if the response was cut at the length limit."""
