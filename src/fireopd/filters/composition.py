"""Conjunction of several filters."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch, strategy_state
from fireopd.types.strategy import union

__all__ = ["AllOf"]


@dataclass(frozen=True)
class AllOf(TrajectoryFilter):
    """Keeps the trajectories that all of several filters keep. Each filter sees the whole batch."""

    filters: list[TrajectoryFilter] = field(default_factory=list)
    """The filters; an empty list keeps all trajectories."""

    @property
    def requires(self) -> frozenset[str]:
        """Signals required by any of the filters."""
        return union(self.filters)

    @property
    def needs_groups(self) -> bool:
        """True if it is True for any of the filters."""
        return any(part.needs_groups for part in self.filters)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        keep = torch.ones_like(batch.finished)
        for part in self.filters:
            keep &= part(batch.view_for(part))
        return keep

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the reasons of all filters for each trajectory, joined by semicolons."""
        reasons = [part.reasons(batch.view_for(part)) for part in self.filters]
        return ["; ".join(filter(None, (texts[row] for texts in reasons))) for row in range(len(batch.teachers))]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the stateful filters."""
        return strategy_state.state_of(strategy_state.numbered(self.filters))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of the filters."""
        strategy_state.load_state(strategy_state.numbered(self.filters), state_dict)
