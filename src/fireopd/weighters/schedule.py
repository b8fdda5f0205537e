"""Weighters that change with the optimizer step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.changing_strategy import ChangingStrategy, Phases, Scheduled
from fireopd.weighters.base import TokenWeighter, UniformWeighter

__all__ = ["ChangingWeighter", "ScheduledWeighter", "WeighterSequence"]


class ChangingWeighter(ChangingStrategy[TokenWeighter], TokenWeighter):
    """Weighter whose result is that of the weighter in effect."""

    by_trajectory = ChangingStrategy.by_trajectory

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L]."""
        part, view = self.current(batch)
        return part(view)


@dataclass(frozen=True)
class ScheduledWeighter(Scheduled[TokenWeighter], ChangingWeighter):
    """Weighter with settings that follow schedules. A configuration writes a schedule in the place of a number."""

    strategy: TokenWeighter = field(default_factory=UniformWeighter)
    """Weighter with its other settings."""


@dataclass(frozen=True)
class WeighterSequence(Phases[TokenWeighter], ChangingWeighter):
    """Applies one weighter after another, each up to an optimizer step."""

    weighters: list[TokenWeighter] = field(default_factory=lambda: [UniformWeighter()])
    """The weighters, in order."""
    switch_steps: list[int] = field(default_factory=list)
    """Optimizer steps at which the second and each later weighter take over, increasing."""

    def __post_init__(self) -> None:
        """Check that the steps are in order."""
        self.check_phases("weighters")

    @property
    def variants(self) -> Sequence[TokenWeighter]:
        """The weighters."""
        return self.weighters
