"""Ratios of two quantities that were measured in turns, with everything that was measured."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Measured = TypeVar("Measured")
"""What one measurement gives."""


@dataclass(frozen=True)
class Side:
    """One of the two quantities of a ratio."""

    what: str
    """What was measured, in words."""
    unit: str
    """For example s, bytes or tokens."""
    values: tuple[float, ...]
    """Every measurement, in order."""


@dataclass(frozen=True)
class Ratio:
    """A quantity over another. Measurements of a pair were taken one right after the other."""

    name: str
    """For example `trl_over_fireopd`."""
    numerator: Side
    """Above the line."""
    denominator: Side
    """Below the line, as many measurements."""
    notes: str = ""
    """What a reader has to know to believe it."""
    details: dict[str, Any] = field(default_factory=dict)
    """More that was measured on the way."""

    @property
    def values(self) -> list[float]:
        """The ratio of each pair."""
        return [a / b for a, b in zip(self.numerator.values, self.denominator.values, strict=True)]

    @property
    def median(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return the ratio for the file of results."""
        sides = {
            name: {"what": side.what, "unit": side.unit, **spread(side.values), "each": list(side.values)}
            for name, side in (("numerator", self.numerator), ("denominator", self.denominator))
        }
        found = {**spread(self.values), "each": self.values, **sides, "notes": self.notes}
        return found | ({"details": self.details} if self.details else {})


@dataclass(frozen=True)
class LeftOut:
    """A ratio that could not be measured."""

    name: str
    """Of the ratio."""
    reason: str
    """Why, and what to do."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, extremes and quartiles (of the sample, inclusive) of one or more values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "min": min(values), "max": max(values), "quartile_1": low, "quartile_3": high}


def in_turns(pairs: int, sides: Sequence[Callable[[], Measured]]) -> list[tuple[Measured, ...]]:
    """Return what some measurements gave, each `pairs` times, taking turns, so that what else a machine does hits all.

    Each starts every other round, as the one that comes first may find colder caches.
    """
    measured: list[list[Measured]] = [[] for _ in sides]
    for turn in range(pairs):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for place in order:
            measured[place].append(sides[place]())
    return [tuple(values) for values in measured]
