"""Ratios of two quantities from interleaved measurements."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Measured = TypeVar("Measured")
"""Type of a measurement."""


@dataclass(frozen=True)
class Side:
    """One of the two quantities of a ratio."""

    what: str
    """Description of the quantity."""
    unit: str
    """Unit, for example s, bytes or tokens."""
    values: tuple[float, ...]
    """All measurements, in order."""


@dataclass(frozen=True)
class Ratio:
    """Ratio of two quantities. The measurements of a pair were made directly after each other."""

    name: str
    """Name, for example `trl_over_fireopd`."""
    numerator: Side
    """Numerator."""
    denominator: Side
    """Denominator, with the same number of measurements."""
    notes: str = ""
    """Conditions of the measurement."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further measurements."""

    @property
    def values(self) -> list[float]:
        """Ratio of each pair."""
        return [a / b for a, b in zip(self.numerator.values, self.denominator.values, strict=True)]

    @property
    def median(self) -> float:
        """Median of the ratios of the pairs."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return the ratio for the results file."""
        sides = {
            name: {"what": side.what, "unit": side.unit, **spread(side.values), "each": list(side.values)}
            for name, side in (("numerator", self.numerator), ("denominator", self.denominator))
        }
        found = {**spread(self.values), "each": self.values, **sides, "notes": self.notes}
        return found | ({"details": self.details} if self.details else {})


@dataclass(frozen=True)
class LeftOut:
    """A ratio that was not measured."""

    name: str
    """Name of the ratio."""
    reason: str
    """Reason, with the remedy."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, extremes and quartiles (of the sample, inclusive) of one or more values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "min": min(values), "max": max(values), "quartile_1": low, "quartile_3": high}


def interleave(pairs: int, sides: Sequence[Callable[[], Measured]]) -> list[tuple[Measured, ...]]:
    """Return `pairs` measurements of each side, interleaved so that other load on the machine affects all sides.

    The order is reversed in every other round, since the first measurement may find colder caches.
    """
    measured: list[list[Measured]] = [[] for _ in sides]
    for turn in range(pairs):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for place in order:
            measured[place].append(sides[place]())
    return [tuple(values) for values in measured]
