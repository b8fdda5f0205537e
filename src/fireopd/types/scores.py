"""Scores of trajectories: per-token scores of one model, and the scored global batch of all signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from fireopd.types.responses import Sampling, Source
from fireopd.types.rollouts import RolloutBatch, tokens_by
from fireopd.types.strategy import Strategy, UndeclaredSignalError

__all__ = ["Population", "ScoredBatch", "TokenScores"]

Population = Literal["rollout_batch", "micro_batch_of_one"]
"""Trajectories that filter and weighter see together: all of a step, or one at a time as in the released scripts."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Per-token scores of some trajectories by one model."""

    logprobs: Tensor
    """float32 [B, L]. Log-probability of each response token, nats, 0 elsewhere."""
    entropy: Tensor | None = None
    """float32 [B, L]. Entropy of the model's distribution before each token, nats; None unless requested."""
    comparisons: Mapping[str, Tensor] = field(default_factory=dict)
    """float32 [B, L] by name. Comparisons of this model's distributions with the teachers', if requested."""
    hidden_states: tuple[Tensor, ...] | None = None
    """[B]. Last hidden states before the response tokens of each row, [tokens of the row, d]; None unless requested."""

    def named(self, model: str) -> dict[str, Tensor]:
        """Return the scores as signals, for example `teacher_logprobs` and `teacher_entropy`."""
        entropy = {} if self.entropy is None else {f"{model}_entropy": self.entropy}
        return {f"{model}_logprobs": self.logprobs, **entropy, **self.comparisons}


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The global batch with its signals, the input of filters, weighters and objectives.

    Each signal is an attribute (`batch.teacher_entropy`). The view of a strategy raises `UndeclaredSignalError` for a
    signal that the strategy does not declare.
    """

    tokens: Tensor
    """int64 [N, L]. Prompt and response token ids."""
    response_mask: Tensor
    """bool [N, L]. True on sampled tokens; on given tokens only if the objective trains on them."""
    groups: Tensor
    """int64 [N]. Group number, equal for responses to the same prompt."""
    finished: Tensor
    """bool [N]. False for responses truncated at the length limit."""
    teachers: tuple[str, ...]
    """[N]. Name of each trajectory's teacher."""
    signals: Mapping[str, Tensor]
    """Computed signals by name (see `fireopd.types.signals.SIGNALS`)."""
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    """Sampling settings of the responses and of `sampling_logprobs`."""
    policy_version: int = 0
    """Optimizer steps of the weights that sampled the responses; the clock of schedules."""
    tasks: tuple[str, ...] = ()
    """[N]. Task of each trajectory; empty if unknown, as in recordings of other frameworks."""
    recorded: bool = False
    """True for recorded trajectories, which other weights than the student's sampled."""
    student_scored: Tensor | None = None
    """bool [N]. Trajectories that the student scored; None for all. Student signals of the others are 0."""
    sources: Tensor | None = None
    """uint8 [N, L]. Author of each token, a `fireopd.types.responses.Source`; None if the student sampled all of the
    response mask."""
    staleness: Tensor | None = None
    """int64 [N]. Optimizer steps of the student since the weights that sampled each trajectory; None if unknown."""
    strategy: Strategy | None = None
    """Strategy whose declared signals this view is restricted to."""

    @classmethod
    def of(cls, rollouts: RolloutBatch, signals: Mapping[str, Tensor]) -> ScoredBatch:
        """Return rollouts with the signals computed for them."""
        return cls(
            tokens=rollouts.tokens,
            response_mask=rollouts.response_mask,
            groups=rollouts.groups,
            finished=rollouts.finished,
            teachers=rollouts.teachers,
            signals=signals,
            sampling=rollouts.sampling,
            policy_version=rollouts.policy_version,
            tasks=rollouts.tasks,
            recorded=rollouts.recorded is not None,
            sources=rollouts.sources,
            staleness=rollouts.staleness,
        )

    @property
    def student_version(self) -> int:
        """Optimizer steps of the student before the step on the batch."""
        sampled = self.staleness is not None and not self.recorded
        return self.policy_version + (int(self.staleness.max()) if sampled and self.staleness is not None else 0)

    @property
    def lengths(self) -> Tensor:
        """int64 [N]. Number of response tokens."""
        return self.response_mask.sum(-1)

    @property
    def spans(self) -> Tensor:
        """int64 [N]. Number of tokens up to the end of the response, prompt included; 0 for an empty response."""
        places = torch.arange(1, self.tokens.shape[1] + 1, device=self.tokens.device)
        return torch.where(self.response_mask, places, 0).amax(-1)

    @property
    def student_mask(self) -> Tensor:
        """Response tokens of trajectories that the student scored, bool [N, L]."""
        return self.response_mask if self.student_scored is None else self.response_mask & self.student_scored[:, None]

    def tokens_by(self, source: Source) -> Tensor:
        """Return bool [N, L], True on the tokens of one author."""
        return tokens_by(source, self.sources, self.response_mask)

    @property
    def authors(self) -> Tensor:
        """uint8 [N, L]. Author of each token, a `fireopd.types.responses.Source`."""
        return self.response_mask.to(torch.uint8) * Source.STUDENT if self.sources is None else self.sources

    @property
    def own_mask(self) -> Tensor:
        """Tokens that the student sampled, of trajectories that it scored, for log-ratio estimates, bool [N, L]."""
        return self.student_mask & self.tokens_by(Source.STUDENT)

    @property
    def sampling_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token under its author, nats."""
        return self._signal("sampling_logprobs")

    @property
    def student_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token under the student before the update."""
        return self._signal("student_logprobs")

    @property
    def student_entropy(self) -> Tensor:
        """float32 [N, L]. Entropy of the student's distribution before each token."""
        return self._signal("student_entropy")

    @property
    def teacher_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token under the row's own teacher."""
        return self._signal("teacher_logprobs")

    @property
    def teacher_entropy(self) -> Tensor:
        """float32 [N, L]. Entropy of the teacher's distribution before each token."""
        return self._signal("teacher_entropy")

    @property
    def base_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token under the base model."""
        return self._signal("base_logprobs")

    @property
    def reverse_kl(self) -> Tensor:
        """float32 [N, L]. KL(student || teacher) over the whole vocabulary before each token."""
        return self._signal("reverse_kl")

    @property
    def topk_reverse_kl(self) -> Tensor:
        """float32 [N, L]. KL(student || teacher), both normalised to mass 1 on the student's top-k tokens."""
        return self._signal("topk_reverse_kl")

    @property
    def topk_forward_kl(self) -> Tensor:
        """float32 [N, L]. KL(teacher || student), each normalised on its own top-k tokens, 1e-12 elsewhere."""
        return self._signal("topk_forward_kl")

    @property
    def topk_overlap(self) -> Tensor:
        """float32 [N, L]. Fraction of the student's top-k tokens that are also in the teacher's top k, in [0, 1]."""
        return self._signal("topk_overlap")

    @property
    def student_topk_mass(self) -> Tensor:
        """float32 [N, L]. Teacher's probability mass on the student's top-k tokens, in [0, 1]."""
        return self._signal("student_topk_mass")

    @property
    def teacher_rank(self) -> Tensor:
        """float32 [N, L]. Rank of the student's likeliest token under the row's own teacher, from 1."""
        return self._signal("teacher_rank")

    @property
    def rewards(self) -> Tensor:
        """float32 [N]. The verifier's grade of each trajectory, in [0, 1]."""
        return self._signal("rewards")

    def _signal(self, name: str) -> Tensor:
        if name in self.signals:
            return self.signals[name]
        if self.strategy is None:
            raise LookupError(f"this batch has no {name}; it has {', '.join(sorted(self.signals))}")
        problem, remedy = f"reads {name!r} without declaring it", f"add {name!r} to its 'requires'"
        raise UndeclaredSignalError.by(self.strategy, problem, remedy)

    def view_for(self, strategy: Strategy) -> ScoredBatch:
        """Return the view of a strategy: the batch with the declared signals only.

        Raises:
            ValueError: if the batch lacks a declared signal.
        """
        missing = sorted(strategy.requires - self.signals.keys())
        if missing:
            raise ValueError(f"{type(strategy).__name__} requires {missing[0]!r}, which this batch does not have")
        return replace(self, signals={k: self.signals[k] for k in strategy.requires}, strategy=strategy)

    def populations(self, population: Population) -> list[ScoredBatch]:
        """Return the batches that filter and weighter see: the global batch, or each trajectory alone."""
        return [self] if population == "rollout_batch" else [self.select([row]) for row in range(len(self.teachers))]

    def rows_of_each_teacher(self) -> list[Tensor]:
        """Return the int64 row index of each teacher, in the order of their names."""
        names = sorted(set(self.teachers))
        return [self.tokens.new_tensor([i for i, t in enumerate(self.teachers) if t == name]) for name in names]

    def select(self, rows: Sequence[int], width: int | None = None) -> ScoredBatch:
        """Return some rows, cut to `width` tokens if given."""
        index = list(rows)
        return replace(
            self,
            tokens=self.tokens[index, :width],
            response_mask=self.response_mask[index, :width],
            groups=self.groups[index],
            finished=self.finished[index],
            student_scored=None if self.student_scored is None else self.student_scored[index],
            teachers=tuple(self.teachers[row] for row in index),
            tasks=tuple(self.tasks[row] for row in index) if self.tasks else (),
            sources=None if self.sources is None else self.sources[index, :width],
            staleness=None if self.staleness is None else self.staleness[index],
            signals={
                name: value[index] if value.ndim == 1 else value[index, :width] for name, value in self.signals.items()
            },
        )
