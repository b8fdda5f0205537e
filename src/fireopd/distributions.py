"""Distributions of teachers over the vocabulary, beside the student's: never is a [tokens, vocabulary] tensor held.

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

from fireopd import collectives

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
            None if part is None else collectives.whole(part.detach().to(device)) for part in (layer.weight, layer.bias)
        ]
        weight, bias = (None if part is None else part.to(dtype) for part in parts)
        assert weight is not None
        return cls(weight, bias)

    def __call__(self, states: Tensor) -> Tensor:
        """Return logits [T, V] of hidden states [T, d]."""
        return linear(states, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Distributions:
    """What teachers believe before each response token of some rows."""

    states: tuple[Tensor, ...]
    """[B]. Last hidden states before the response tokens of each row, [tokens of the row, d of its teacher]."""
    heads: tuple[Head, ...]
    """[B]. What turns those of each row into logits."""

    def select(self, rows: Tensor) -> Distributions:
        """Return the rows of an int64 index."""
        index = rows.tolist()
        return Distributions(tuple(self.states[row] for row in index), tuple(self.heads[row] for row in index))

    def by_head(self) -> Iterator[tuple[Head, Tensor, Tensor]]:
        """Yield each head with its rows, bool [B], and their hidden states, [T, d], row after row."""
        for head in dict.fromkeys(self.heads):
            own = [other is head for other in self.heads]
            states = [part for part, mine in zip(self.states, own, strict=True) if mine]
            yield head, torch.tensor(own, device=states[0].device), torch.cat(states)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measure to be taken of student and teachers at the response tokens of some rows."""

    distributions: Distributions
    """Of the teachers."""
    measure: Measure
    """Called on some tokens at a time."""

    def select(self, rows: Tensor) -> Comparison:
        """Return the rows of an int64 index."""
        return Comparison(self.distributions.select(rows), self.measure)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return float [T]: KL(p || q) in nats of log-distributions [T, V]; what p rules out counts 0."""
    mass = p.exp()
    return (mass * torch.where(mass > 0, p - q, 0.0)).sum(-1)


def joint_signals(names: frozenset[str], top_k: int) -> Measure:
    """Return the measure of the named signals, which are some of `signals.JOINT`.

    Args:
        names: of the signals.
        top_k: how many of the likeliest tokens count as the top, at most the whole vocabulary.
    """

    def measure(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
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
