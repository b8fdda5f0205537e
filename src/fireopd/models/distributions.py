"""TeacherDistributions of teachers over the vocabulary, beside the student's: never is a [tokens, vocabulary] tensor held.

A teacher reads first and leaves its last hidden states, 2 d bytes a token in half precision, and its output head. The
student's pass (`scoring.py`) then applies both heads to some tokens at a time and measures the two distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers.modeling_utils import PreTrainedModel

from fireopd.distributed import collectives
from fireopd.reductions import kl

Measure = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Takes the log-distributions of student and teacher, float32 [T, V] each, and returns float [T] numbers by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The output layer of a frozen model, whole even where the model is sharded."""

    weight: Tensor
    """[V, d], in the type of the hidden states."""
    bias: Tensor | None
    """[V], of the same type."""

    @classmethod
    def of(cls, model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> Head:
        """Return the head of a model. Every process calls, since each may hold a slice of it."""
        layer = model.get_output_embeddings()
        parts = [
            None if part is None else collectives.full_tensor(part.detach().to(device))
            for part in (layer.weight, layer.bias)
        ]
        weight, bias = (None if part is None else part.to(dtype) for part in parts)
        assert weight is not None
        return cls(weight, bias)

    def __call__(self, states: Tensor) -> Tensor:
        """Return logits [T, V] of hidden states [T, d]."""
        return linear(states, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class TeacherDistributions:
    """What teachers believe before each response token of some rows."""

    hidden_states: tuple[Tensor, ...]
    """[B]. Last hidden states before the response tokens of each row, [tokens of the row, d of its teacher]."""
    heads: tuple[Head, ...]
    """[B]. What turns those of each row into logits."""

    def select(self, rows: Tensor) -> TeacherDistributions:
        """Return the rows of an int64 index."""
        index = rows.tolist()
        return TeacherDistributions(
            tuple(self.hidden_states[row] for row in index), tuple(self.heads[row] for row in index)
        )


@dataclass(frozen=True, slots=True)
class Companion:
    """One teacher's distributions at some tokens, to be measured beside the student's."""

    head: Head
    """Of the teacher."""
    hidden_states: Tensor
    """[T, d]. Its last hidden states before each token."""
    measure: Measure
    """What is asked."""

    def split(self, size: int) -> list[Companion]:
        """Return the same for so many tokens at a time."""
        return [Companion(self.head, part, self.measure) for part in self.hidden_states.split(size)]

    def compare(self, student: Tensor, temperature: float) -> Mapping[str, Tensor]:
        """Return the measure, float [T] by name, of the student's log-distributions [T, V] and these."""
        with torch.no_grad():
            teacher = log_distribution(self.head(self.hidden_states), temperature)
        return self.measure(student, teacher)


@dataclass(frozen=True, slots=True)
class DistributionComparison:
    """A measure to be taken of student and teachers at the response tokens of some rows."""

    distributions: TeacherDistributions
    """Of the teachers."""
    measure: Measure
    """Called on some tokens at a time."""

    def select(self, rows: Tensor) -> DistributionComparison:
        """Return the rows of an int64 index."""
        return DistributionComparison(self.distributions.select(rows), self.measure)

    def by_head(self) -> Iterator[tuple[Tensor, Companion]]:
        """Yield the rows of each teacher, bool [B], with what stands beside their response tokens, row after row."""
        heads, states = self.distributions.heads, self.distributions.hidden_states
        for head in dict.fromkeys(heads):
            own = [other is head for other in heads]
            part = torch.cat([row for row, mine in zip(states, own, strict=True) if mine])
            yield torch.tensor(own, device=part.device), Companion(head, part, self.measure)


def log_distribution(logits: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities that logits [T, V] stand for, in float32 at least."""
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)


def joint_signals(names: frozenset[str], top_k: int) -> Measure:
    """Return the measure of the named signals, which are some of `signals.JOINT`.

    Args:
        names: of the signals.
        top_k: how many of the likeliest tokens count as the top, at most the whole vocabulary.
    """

    def measure(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Return float [T] by name, of log-distributions [T, V]."""
        size = min(top_k, student.shape[-1])
        top = student.topk(size).indices
        values = {}
        if "reverse_kl" in names:
            values["reverse_kl"] = kl(student, teacher)
        if "topk_overlap" in names:
            shared = top[:, :, None] == teacher.topk(size).indices[:, None, :]
            values["topk_overlap"] = shared.any(-1).to(student.dtype).mean(-1)
        if "student_topk_mass" in names:
            values["student_topk_mass"] = teacher.gather(-1, top).exp().sum(-1).clamp(max=1)
        return values

    return measure
