"""Filters that change with the optimizer step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fireopd.filters.base import KeepAll, TrajectoryFilter
from fireopd.types import ScoredBatch
from fireopd.types.changing_strategy import ChangingStrategy, Phases, Scheduled

__all__ = ["ChangingFilter", "FilterSequence", "ScheduledFilter"]


class ChangingFilter(ChangingStrategy[TrajectoryFilter], TrajectoryFilter):
    """Filter whose result is that of the filter in effect."""

    by_trajectory = ChangingStrategy.by_trajectory

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        part, view = self.current(batch)
        return part(view)

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the reasons of the filter in effect."""
        part, view = self.current(batch)
        return part.reasons(view)


@dataclass(frozen=True)
class ScheduledFilter(Scheduled[TrajectoryFilter], ChangingFilter):
    """Filter with settings that follow schedules. A configuration writes a schedule in the place of a number."""

    strategy: TrajectoryFilter = field(default_factory=KeepAll)
    """Filter with its other settings."""


@dataclass(frozen=True)
class FilterSequence(Phases[TrajectoryFilter], ChangingFilter):
    """Applies one filter after another, each up to an optimizer step."""

    filters: list[TrajectoryFilter] = field(default_factory=lambda: [KeepAll()])
    """The filters, in order."""
    switch_steps: list[int] = field(default_factory=list)
    """Optimizer steps at which the second and each later filter take over, increasing."""

    def __post_init__(self) -> None:
        """Check that the steps are in order."""
        self.check_phases("filters")

    @property
    def variants(self) -> Sequence[TrajectoryFilter]:
        """The filters."""
        return self.filters
