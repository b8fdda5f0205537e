"""Objectives that change with the optimizer step, such as distillation before reinforcement learning."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fireopd.objectives.base import Objective
from fireopd.objectives.log_ratio import ReverseKL
from fireopd.types import ScoredBatch, Source
from fireopd.types.changing_strategy import ChangingStrategy, Phases, Scheduled

__all__ = ["ChangingObjective", "ObjectiveSequence", "ScheduledObjective"]


class ChangingObjective(ChangingStrategy[Objective], Objective):
    """Objective whose advantages are those of the objective in effect."""

    by_trajectory = ChangingStrategy.by_trajectory

    @property
    def direct(self) -> bool:
        """True if any of the objectives is direct."""
        return any(part.direct for part in self.variants)

    @property
    def exact_for(self) -> frozenset[Source]:
        """Authors for which the gradient is exact at all steps."""
        return frozenset.intersection(*(part.exact_for for part in self.variants))

    @property
    def trains_given(self) -> bool:
        """True if given tokens are trained on at any step."""
        return any(part.trains_given for part in self.variants)

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L]."""
        part, view = self.current(batch)
        return part.advantage(view)


@dataclass(frozen=True)
class ScheduledObjective(Scheduled[Objective], ChangingObjective):
    """Objective with settings that follow schedules. A configuration writes a schedule in the place of a number."""

    strategy: Objective = field(default_factory=ReverseKL)
    """Objective with its other settings."""


@dataclass(frozen=True)
class ObjectiveSequence(Phases[Objective], ChangingObjective):
    """Applies one objective after another, each up to an optimizer step."""

    objectives: list[Objective] = field(default_factory=lambda: [ReverseKL()])
    """The objectives, in order."""
    switch_steps: list[int] = field(default_factory=list)
    """Optimizer steps at which the second and each later objective take over, increasing."""

    def __post_init__(self) -> None:
        """Check that the steps are in order."""
        self.check_phases("objectives")

    @property
    def variants(self) -> Sequence[Objective]:
        """The objectives."""
        return self.objectives
