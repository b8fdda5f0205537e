"""Sampling distribution, sampled responses, and the authors of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Response", "Sampling", "Source"]


class Source(IntEnum):
    """Author of a token."""

    PROMPT = 0
    """Prompt or padding."""
    STUDENT = 1
    """Sampled by the student."""
    TEACHER = 2
    """Sampled by a teacher."""
    GIVEN = 3
    """Start of a response that no model sampled, such as a part of a reference solution."""


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
    """A response, or the start of one, sampled by the student unless `sources` names other authors."""

    tokens: tuple[int, ...]
    """Token ids, including the end-of-sequence token if sampled."""
    logprobs: tuple[float, ...]
    """Log-probability of each token under the distribution of its author, nats; 0 for given tokens."""
    finished: bool
    """False if the response was truncated at the length limit."""
    sources: tuple[Source, ...] | None = None
    """Author of each token; None if the student sampled all of them."""

    @classmethod
    def given(cls, tokens: Sequence[int]) -> Response:
        """Return the start of a response that no model sampled."""
        return cls(tuple(tokens), (0.0,) * len(tokens), finished=False, sources=(Source.GIVEN,) * len(tokens))

    @property
    def authors(self) -> tuple[Source, ...]:
        """Author of each token."""
        return (Source.STUDENT,) * len(self.tokens) if self.sources is None else self.sources

    def first(self, count: int) -> Response:
        """Return the first tokens; unfinished if any is left out."""
        if count >= len(self.tokens):
            return self
        sources = None if self.sources is None else self.sources[:count]
        return Response(self.tokens[:count], self.logprobs[:count], finished=False, sources=sources)

    def followed_by(self, rest: Response) -> Response:
        """Return this start of a response with its continuation."""
        student = self.sources is None and rest.sources is None
        sources = None if student else self.authors + rest.authors
        return Response(self.tokens + rest.tokens, self.logprobs + rest.logprobs, rest.finished, sources)

    def by(self, source: Source) -> Response:
        """Return the response with one author of all tokens."""
        sources = None if source == Source.STUDENT else (source,) * len(self.tokens)
        return Response(self.tokens, self.logprobs, self.finished, sources)
