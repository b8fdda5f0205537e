"""Trajectory filters: which of the student's trajectories are worth learning from.

A filter sees the global batch and answers for all rows at once. Entry-point group: `fireopd.filters`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fireopd import reductions, signals, states
from fireopd.signals import Strategy
from fireopd.types import ScoredBatch


class TrajectoryFilter(Strategy, ABC):
    """Keeps or drops whole trajectories."""

    setting = "model.trajectory_filter"
    check = "check_filter"

    @abstractmethod
    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]: True keeps the trajectory."""


@dataclass(frozen=True)
class KeepAll(TrajectoryFilter):
    """Keeps every trajectory: plain on-policy distillation."""

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N], all True."""
        return torch.ones_like(batch.finished)


@dataclass(frozen=True)
class TeacherLikelihoodFilter(TrajectoryFilter):
    """Drops the trajectories that their teacher finds unlikely (FiRe-OPD, arXiv 2606.02684, Eq. 4 and 5).

    Keeps s >= quantile(s, drop_fraction), s being the mean log-probability of the response under its teacher. The
    quantile is interpolated linearly: ties survive, one trajectory is kept, the order of rows does not matter.
    """

    drop_fraction: float = 0.2
    """Share of the trajectories to drop, in [0, 1)."""
    per_teacher: bool = False
    """Rank the trajectories of each teacher apart, so that no domain is dropped for being harder to predict."""

    requires = frozenset({"teacher_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.drop_fraction < 1:
            raise ValueError(f"drop_fraction must be in [0, 1), got {self.drop_fraction}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]; empty responses are dropped and have no part in the quantile."""
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask).double()
        scores = scores.nan_to_num(nan=-1e30, neginf=-1e30)
        keep = torch.zeros_like(batch.finished)
        everybody = [torch.arange(len(scores), device=scores.device)]
        for population in batch.rows_of_each_teacher() if self.per_teacher else everybody:
            rows = population[batch.lengths[population] > 0]
            if len(rows) > 0:
                keep[rows] = scores[rows] >= torch.quantile(scores[rows], self.drop_fraction)
        return keep


@dataclass(frozen=True)
class LengthFilter(TrajectoryFilter):
    """Keeps responses of a length, and by choice only those that came to an end."""

    min_tokens: int = 1
    """Shortest response to keep, tokens."""
    max_tokens: int | None = None
    """Longest response to keep, tokens; none for no limit."""
    only_finished: bool = False
    """Drop responses that were cut at the length limit."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens must be at least 0, got {self.min_tokens}")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens must be at least min_tokens = {self.min_tokens}, got {self.max_tokens}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        keep = batch.lengths >= self.min_tokens
        if self.max_tokens is not None:
            keep &= batch.lengths <= self.max_tokens
        return keep & batch.finished if self.only_finished else keep


@dataclass(frozen=True)
class AllOf(TrajectoryFilter):
    """Keeps what every one of several filters keeps; each sees the whole batch."""

    filters: list[TrajectoryFilter] = field(default_factory=list)
    """The filters; with none, everything is kept."""

    @property
    def requires(self) -> frozenset[str]:
        """What any of the filters requires."""
        return signals.union(self.filters)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        keep = torch.ones_like(batch.finished)
        for part in self.filters:
            keep &= part(batch.seen_by(part))
        return keep

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those filters that have one."""
        return states.state_of(states.numbered(self.filters))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give the filters their states back."""
        states.load_state(states.numbered(self.filters), state_dict)
