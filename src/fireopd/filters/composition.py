"""Several filters put together."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch, strategy_state
from fireopd.types.strategy import union


@dataclass(frozen=True)
class AllOf(TrajectoryFilter):
    """Keeps what every one of several filters keeps; each sees the whole batch."""

    filters: list[TrajectoryFilter] = field(default_factory=list)
    """The filters; with none, everything is kept."""

    @property
    def requires(self) -> frozenset[str]:
        """What any of the filters requires."""
        return union(self.filters)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        keep = torch.ones_like(batch.finished)
        for part in self.filters:
            keep &= part(batch.view_for(part))
        return keep

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return what every filter says of each trajectory."""
        said = [part.reasons(batch.view_for(part)) for part in self.filters]
        return ["; ".join(filter(None, (of[row] for of in said))) for row in range(len(batch.teachers))]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those filters that have one."""
        return strategy_state.state_of(strategy_state.numbered(self.filters))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give the filters their states back."""
        strategy_state.load_state(strategy_state.numbered(self.filters), state_dict)
