"""Comparison of teacher and student distributions over the full vocabulary.

A teacher scores first and stores its last hidden states (2 d bytes per token in half precision) and its output head.
The forward pass of the student (`scorer.py`) applies both heads to a chunk of tokens at a time and compares the two
distributions. A [tokens, vocabulary] tensor never exists.

Heads of different sizes: models of one family pad their vocabulary to different multiples. Both distributions are
restricted to the tokens that both heads have, the first ones, and normalized over these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fireopd.models.output_head import OutputHead, log_distribution
from fireopd.reductions import kl

__all__ = [
    "DistributionComparison",
    "HeadComparison",
    "Measure",
    "OutputHead",
    "TeacherDistributions",
    "TeacherHead",
    "joint_signals",
    "log_distribution",
]

Measure = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]
"""Function of the log-distributions of student and teacher, float32 [T, V] each, and of the tokens that follow, int64
[T], that returns float [T] by name."""

SMALLEST_PROBABILITY = 1e-12
"""Probability of tokens outside a model's top k in `truncated_forward_kl`."""


class TeacherHead(Protocol):
    """Output head of a teacher: that of a model, or of a mixture of models."""

    @property
    def size(self) -> int:
        """Number V of tokens of its vocabulary."""

    @property
    def width(self) -> int:
        """Size d of the hidden states."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the hidden states."""

    def first(self, size: int) -> TeacherHead:
        """Return the head of the first `size` tokens of the vocabulary, whose probabilities are normalised."""

    def log_distribution(self, hidden_states: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities [T, V] of hidden states [T, d], in float32 or the higher precision of the logits."""


@dataclass(frozen=True, slots=True)
class TeacherDistributions:
    """Teacher distributions at the response tokens of B rows, stored as hidden states and output heads."""

    hidden_states: tuple[Tensor, ...]
    """[B]. Last hidden states that predict the response tokens of each row, [response tokens, d of the teacher]."""
    heads: tuple[TeacherHead, ...]
    """[B]. Output head of each row's teacher; rows with the same object are compared together."""

    def select(self, rows: Tensor) -> TeacherDistributions:
        """Return the rows of an int64 index."""
        index = rows.tolist()
        hidden_states, heads = (tuple(values[row] for row in index) for values in (self.hidden_states, self.heads))
        return TeacherDistributions(hidden_states, heads)


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """Comparison of the student with one teacher at T tokens."""

    head: TeacherHead
    """Output head of the teacher."""
    hidden_states: Tensor
    """[T, d]. Last hidden states of the teacher that predict each token."""
    measure: Measure
    """Function of the two log-distributions."""

    def split(self, size: int) -> list[HeadComparison]:
        """Return chunks of at most `size` tokens."""
        return [HeadComparison(self.head, chunk, self.measure) for chunk in self.hidden_states.split(size)]

    def compare(self, student: Tensor, tokens: Tensor, temperature: float) -> Mapping[str, Tensor]:
        """Return the measure, float [T] by name, of the student's log-distributions [T, V] and the teacher's.

        Args:
            student: float32 [T, V].
            tokens: int64 [T]. The token that follows each state.
            temperature: divisor of the teacher's logits.
        """
        size = min(student.shape[-1], self.head.size)
        with torch.no_grad():
            teacher = self.head.first(size).log_distribution(self.hidden_states, temperature)
        if size < student.shape[-1]:
            student, tokens = student[:, :size].log_softmax(-1), tokens.clamp(max=size - 1)
        return self.measure(student, teacher, tokens)


@dataclass(frozen=True, slots=True)
class DistributionComparison:
    """Measure of student and teacher distributions at the response tokens of B rows."""

    distributions: TeacherDistributions
    """Distributions of the teachers."""
    measure: Measure
    """Function of the log-distributions, called with a chunk of tokens at a time."""

    def select(self, rows: Tensor) -> DistributionComparison:
        """Return the rows of an int64 index."""
        return DistributionComparison(self.distributions.select(rows), self.measure)

    def by_head(self) -> Iterator[tuple[Tensor, HeadComparison]]:
        """Yield a row mask, bool [B], and the comparison at the response tokens of these rows for each teacher."""
        heads, hidden_states = self.distributions.heads, self.distributions.hidden_states
        for head in dict.fromkeys(heads):
            selected = [other is head for other in heads]
            tokens = torch.cat([row for row, is_own in zip(hidden_states, selected, strict=True) if is_own])
            yield torch.tensor(selected, device=tokens.device), HeadComparison(head, tokens, self.measure)


def truncated_forward_kl(student_top: Tensor, teacher: Tensor, matches: Tensor) -> Tensor:
    """Return float [T]: KL(teacher || student), each truncated to its own likeliest tokens and normalised.

    Tokens of the teacher's top k that are not in the student's have the probability `SMALLEST_PROBABILITY` there, as in
    the released code of TA-OPD (arXiv 2605.26844).

    Args:
        student_top: float [T, k]. Largest log-probabilities of the student, descending.
        teacher: float [T, V]. Log-distribution of the teacher.
        matches: bool [T, k, k]. True where the student's i-th token is the teacher's j-th.
    """
    other = teacher.topk(matches.shape[-1]).values.softmax(-1).clamp(min=SMALLEST_PROBABILITY)
    own = torch.where(matches, student_top.softmax(-1)[:, :, None], 0.0).sum(1).clamp(min=SMALLEST_PROBABILITY)
    return (other * (other.log() - own.log())).sum(-1)


def joint_signals(names: frozenset[str], top_k: int) -> Measure:
    """Return a measure that computes joint signals of student and teacher (`fireopd.types.signals.JOINT`).

    Args:
        names: names of the signals.
        top_k: number of tokens in the top-k sets, at most the size of the vocabulary.
    """

    def measure(student: Tensor, teacher: Tensor, _: Tensor) -> dict[str, Tensor]:
        """Return float [T] by name of log-distributions [T, V]; the tokens have no effect."""
        size = min(top_k, student.shape[-1])
        top = student.topk(size).indices
        values = {}
        if "reverse_kl" in names:
            values["reverse_kl"] = kl(student, teacher)
        if "topk_reverse_kl" in names:
            own, other = (values.gather(-1, top).log_softmax(-1) for values in (student, teacher))
            values["topk_reverse_kl"] = kl(own, other)
        if names & {"topk_overlap", "topk_forward_kl"}:
            matches = top[:, :, None] == teacher.topk(size).indices[:, None, :]
            if "topk_overlap" in names:
                values["topk_overlap"] = matches.any(-1).to(student.dtype).mean(-1)
            if "topk_forward_kl" in names:
                values["topk_forward_kl"] = truncated_forward_kl(student.topk(size).values, teacher, matches)
        if "student_topk_mass" in names:
            values["student_topk_mass"] = teacher.gather(-1, top).exp().sum(-1).clamp(max=1)
        if "teacher_rank" in names:
            proposal = teacher.gather(-1, top[:, :1])  # of the student's likeliest token
            values["teacher_rank"] = (teacher > proposal).sum(-1).to(student.dtype) + 1
        return values

    return measure
