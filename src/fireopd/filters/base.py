"""Trajectory filters: which of the student's trajectories are worth learning from.

A filter sees the global batch and answers for all rows at once. Entry-point group: `fireopd.filters`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.strategy import Strategy


class TrajectoryFilter(Strategy, ABC):
    """Keeps or drops whole trajectories."""

    setting = "model.trajectory_filter"
    check = "check_filter"

    @abstractmethod
    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]: True keeps the trajectory."""

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return by what each of the N trajectories is judged, in a few words for people; none by default."""
        return [""] * len(batch.teachers)


@dataclass(frozen=True)
class KeepAll(TrajectoryFilter):
    """Keeps every trajectory: plain on-policy distillation."""

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N], all True."""
        return torch.ones_like(batch.finished)
