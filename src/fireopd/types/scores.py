"""What models say of trajectories: of some rows, and of the whole batch that strategies see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fireopd.types.responses import Sampling
from fireopd.types.rollouts import RolloutBatch
from fireopd.types.strategy import Strategy, UndeclaredSignalError


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says about each token of some trajectories."""

    logprobs: Tensor
    """float32 [B, L]. Log-probability of each response token, nats, 0 elsewhere."""
    entropy: Tensor | None = None
    """float32 [B, L]. Entropy of the distribution that the token was drawn from, nats, where it was asked for."""
    comparisons: Mapping[str, Tensor] = field(default_factory=dict)
    """float32 [B, L] by name. What was measured of this model's distributions and the teachers', where asked for."""
    hidden_states: tuple[Tensor, ...] | None = None
    """[B]. Last hidden states before the response tokens of each row, [tokens of the row, d], where asked for."""

    def named(self, model: str) -> dict[str, Tensor]:
        """Return the scores as signals, for example `teacher_logprobs` and `teacher_entropy`."""
        entropy = {} if self.entropy is None else {f"{model}_entropy": self.entropy}
        return {f"{model}_logprobs": self.logprobs, **entropy, **self.comparisons}


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The global batch after student and teachers have read it: what filters, weighters and objectives see.

    A signal is read as an attribute (`batch.teacher_entropy`); one that the strategy did not declare is refused.
    """

    tokens: Tensor
    """int64 [N, L]. Prompt and response token ids."""
    response_mask: Tensor
    """bool [N, L]. True on tokens that the student sampled."""
    groups: Tensor
    """int64 [N]. Responses to one prompt share a number."""
    finished: Tensor
    """bool [N]. False where the response was cut at the length limit."""
    teachers: tuple[str, ...]
    """[N]. Name of each trajectory's teacher."""
    signals: Mapping[str, Tensor]
    """The signals that were computed, by name (see `fireopd.types.signals.SIGNALS`)."""
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    """The distribution that `sampling_logprobs` describe."""
    policy_version: int = 0
    """Optimizer steps that the sampling weights had seen: the clock of schedules."""
    tasks: tuple[str, ...] = ()
    """[N]. Task of each trajectory; empty where they are not known, as in a foreign recording."""
    student_scored: Tensor | None = None
    """bool [N]. Trajectories that the student has read, where it has not read all; its signals of others are 0."""
    reader: Strategy | None = None
    """The strategy to which this view is restricted."""

    @classmethod
    def of(cls, rollouts: RolloutBatch, signals: Mapping[str, Tensor]) -> ScoredBatch:
        """Return some rollouts with the signals that were computed for them."""
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
        )

    @property
    def lengths(self) -> Tensor:
        """int64 [N]. Number of response tokens."""
        return self.response_mask.sum(-1)

    @property
    def spans(self) -> Tensor:
        """int64 [N]. Number of tokens up to the last of the response, prompt included; 0 without a response."""
        places = torch.arange(1, self.tokens.shape[1] + 1, device=self.tokens.device)
        return torch.where(self.response_mask, places, 0).amax(-1)

    @property
    def student_mask(self) -> Tensor:
        """Which response tokens the student has read, bool [N, L]."""
        return self.response_mask if self.student_scored is None else self.response_mask & self.student_scored[:, None]

    @property
    def sampling_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token when it was sampled."""
        return self._signal("sampling_logprobs")

    @property
    def student_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token under the student before the update."""
        return self._signal("student_logprobs")

    @property
    def student_entropy(self) -> Tensor:
        """float32 [N, L]. Entropy of the student's distribution at each token."""
        return self._signal("student_entropy")

    @property
    def teacher_logprobs(self) -> Tensor:
        """float32 [N, L]. Log-probability of each token under the row's own teacher."""
        return self._signal("teacher_logprobs")

    @property
    def teacher_entropy(self) -> Tensor:
        """float32 [N, L]. Entropy of the teacher's distribution at each token."""
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
    def topk_overlap(self) -> Tensor:
        """float32 [N, L]. Share of the student's likeliest tokens that are among the teacher's, in [0, 1]."""
        return self._signal("topk_overlap")

    @property
    def student_topk_mass(self) -> Tensor:
        """float32 [N, L]. The teacher's probability of the student's likeliest tokens, in [0, 1]."""
        return self._signal("student_topk_mass")

    @property
    def rewards(self) -> Tensor:
        """float32 [N]. The verifier's grade of each trajectory, in [0, 1]."""
        return self._signal("rewards")

    def _signal(self, name: str) -> Tensor:
        if name in self.signals:
            return self.signals[name]
        if self.reader is None:
            raise LookupError(f"this batch holds no {name}; it holds {', '.join(sorted(self.signals))}")
        problem, remedy = f"reads {name!r} without declaring it", f"add {name!r} to its 'requires'"
        raise UndeclaredSignalError.by(self.reader, problem, remedy)

    def seen_by(self, strategy: Strategy) -> ScoredBatch:
        """Return the view of a strategy: only the signals that it declares."""
        missing = sorted(strategy.requires - self.signals.keys())
        if missing:
            raise ValueError(f"{type(strategy).__name__} requires {missing[0]!r}, which this batch does not hold")
        return replace(self, signals={k: self.signals[k] for k in strategy.requires}, reader=strategy)

    def rows_of_each_teacher(self) -> list[Tensor]:
        """Return, for each teacher, the int64 index of its rows."""
        names = sorted(set(self.teachers))
        return [self.tokens.new_tensor([i for i, t in enumerate(self.teachers) if t == name]) for name in names]

    def select(self, rows: Sequence[int], width: int | None = None) -> ScoredBatch:
        """Return some of the rows, cut to a width if one is given."""
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
            signals={
                name: value[index] if value.ndim == 1 else value[index, :width] for name, value in self.signals.items()
            },
        )
