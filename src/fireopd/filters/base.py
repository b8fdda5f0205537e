"""Base class of trajectory filters. Entry-point group: `fireopd.filters`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.strategy import Strategy

__all__ = ["KeepAll", "TrajectoryFilter"]


class TrajectoryFilter(Strategy, ABC):
    """Keeps or drops whole trajectories of the global batch."""

    setting = "model.trajectory_filter"
    check = "check_filter"

    @abstractmethod
    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N], True for kept trajectories."""

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return N short texts, the reason of the decision on each trajectory; empty by default."""
        return [""] * len(batch.teachers)


@dataclass(frozen=True)
class KeepAll(TrajectoryFilter):
    """Keeps every trajectory: plain on-policy distillation."""

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N], all True."""
        return torch.ones_like(batch.finished)
