"""Strategies that change with the optimizer step: scheduled settings, and phases.

The clock is the policy version of the batch. The strategy in effect is a function of it alone, so a resumed run
continues a schedule exactly. Classes of each kind are in the `schedule.py` of filters, weighters and objectives.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Generic, TypeVar, cast

from fireopd.types import strategy_state
from fireopd.types.schedule import Schedule, check_schedule, last_step, numeric_settings, value_at
from fireopd.types.scores import ScoredBatch
from fireopd.types.strategy import Strategy, union

__all__ = ["ChangingStrategy", "Phases", "Scheduled"]

S = TypeVar("S", bound=Strategy)

MOST_CHECKS = 100
"""Largest number of steps of a schedule whose values are checked; they include the first and the last."""


class ChangingStrategy(Strategy, ABC, Generic[S]):
    """Strategy whose answers are those of another one, which depends on the optimizer step.

    It declares the needs of all of them.
    """

    @property
    @abstractmethod
    def variants(self) -> Sequence[S]:
        """Strategies that are in effect at some step."""

    @property
    def requires(self) -> frozenset[str]:
        """Signals required at any step."""
        return union(self.variants)

    @property
    def by_trajectory(self) -> bool:
        """True if it is True at all steps."""
        return all(part.by_trajectory for part in self.variants)

    @property
    def needs_groups(self) -> bool:
        """True if it is True at any step."""
        return any(part.needs_groups for part in self.variants)

    def current(self, batch: ScoredBatch) -> tuple[S, ScoredBatch]:
        """Return the strategy in effect for a batch, and its view of the batch."""
        part = self.at(batch.policy_version)
        return part, batch.view_for(part)


@dataclass(frozen=True)
class Scheduled(ChangingStrategy[S]):
    """Strategy with settings that follow schedules."""

    strategy: S
    """Strategy with its other settings."""
    schedules: dict[str, Schedule] = field(default_factory=dict)
    """Schedules by name of a numeric setting; values of integer settings are rounded."""
    latest: SimpleNamespace = strategy_state.remembered(strategy=None)  # noqa: RUF009 - a field
    """The strategy that was last in effect, which has the state."""

    def __post_init__(self) -> None:
        """Check the schedules, and all values that they take."""
        numbers = numeric_settings(type(self.strategy))
        for name, schedule in self.schedules.items():
            if name not in numbers:
                kind, known = type(self.strategy).__name__, ", ".join(numbers) or "none"
                raise ValueError(f"{name} must be a numeric setting of {kind} to follow a schedule; they are: {known}")
            check_schedule(name, schedule)
        len(self.variants)  # made here, since making them checks all values

    @cached_property
    def variants(self) -> Sequence[S]:
        """The strategy at up to `MOST_CHECKS` steps, evenly spaced from the first to the last; raise `ValueError`."""
        ends = {edge for own in self.schedules.values() for edge in (own.get("start", 0), last_step(own))}
        last = max(ends, default=0)
        steps = sorted(ends | {place * last // MOST_CHECKS for place in range(MOST_CHECKS)} | {0})
        found = dict[tuple[float, ...], S]()
        for step in steps:
            values = self.settings(step)
            try:
                found.setdefault(tuple(values.values()), replace(self.strategy, **values))  # type: ignore[type-var]
            except ValueError as error:
                raise ValueError(f"{error} at step {step} of its schedule") from error
        return tuple(found.values())

    def settings(self, policy_version: int) -> dict[str, float]:
        """Return the values of the scheduled settings at an optimizer step."""
        numbers = numeric_settings(type(self.strategy))
        values = {name: value_at(schedule, policy_version) for name, schedule in self.schedules.items()}
        return {name: round(value) if numbers[name] is int else value for name, value in values.items()}

    def at(self, policy_version: int) -> S:
        """Return the strategy with the values of an optimizer step, and with the state of the last one."""
        values, latest = self.settings(policy_version), cast(Any, self.latest.strategy or self.strategy)
        if any(getattr(latest, name) != value for name, value in values.items()):
            following = replace(latest, **values)
            strategy_state.load_state({"": following}, strategy_state.state_of({"": latest}))
            latest = following
        self.latest.strategy = latest
        return cast(S, latest.at(policy_version))

    def changes(self, policy_version: int) -> dict[str, float]:
        """Return the values of the scheduled settings, and of those within the strategy."""
        return self.settings(policy_version) | self.strategy.changes(policy_version)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the strategy, if it has one."""
        return strategy_state.state_of({"strategy": self.latest.strategy or self.strategy})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state of the strategy."""
        strategy_state.load_state({"strategy": self.latest.strategy or self.strategy}, state_dict)


class Phases(ChangingStrategy[S]):
    """Strategies that follow one another. A subclass is a dataclass with the setting `switch_steps`."""

    switch_steps: list[int]

    def check_phases(self, name: str) -> None:
        """Raise `ValueError` unless each strategy of the setting `name` but the first has its step, in order."""
        parts, steps = len(self.variants), self.switch_steps
        if not parts:
            raise ValueError(f"{name} must be at least one, got []")
        if len(steps) != parts - 1:
            raise ValueError(f"switch_steps must be {parts - 1} steps for {parts} {name}, got {steps}")
        if any(step <= before for before, step in zip([0, *steps], steps, strict=False)):
            raise ValueError(f"switch_steps must increase and be at least 1, got {steps}")

    def phase(self, policy_version: int) -> int:
        """Return the index of the strategy that is in effect at an optimizer step."""
        return sum(step <= policy_version for step in self.switch_steps)

    def at(self, policy_version: int) -> S:
        """Return the strategy that is in effect at an optimizer step."""
        return self.variants[self.phase(policy_version)].at(policy_version)

    def changes(self, policy_version: int) -> dict[str, float]:
        """Return the index of the strategy in effect as `phase`, and the scheduled settings within it."""
        phase = self.phase(policy_version)
        return {"phase": float(phase)} | self.variants[phase].changes(policy_version)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the stateful strategies."""
        return strategy_state.state_of(strategy_state.numbered(list(self.variants)))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the states of the strategies."""
        strategy_state.load_state(strategy_state.numbered(list(self.variants)), state_dict)
