"""Detectors for failing runs: each watches the history of one metric of the training steps."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

__all__ = ["AboveLimit", "Constant", "Drop", "FailureDetector", "Increase", "MetricHistory", "RelativeDrop"]


@dataclass
class MetricHistory:
    """First, last and lowest values of a metric over the steps."""

    window: int
    """Steps that are averaged, so that a single step does not trigger a warning."""
    first: list[float] = field(default_factory=list)
    """The first `window` values."""
    last: list[float] = field(default_factory=list)
    """The last `window` values."""
    lowest: float = math.inf
    """Smallest mean over `window` consecutive values."""

    def add(self, value: float) -> None:
        """Add the value of a step; ignore a value that is not finite, which skips the step anyway."""
        if not math.isfinite(value):
            return
        if len(self.first) < self.window:
            self.first.append(value)
        self.last = [*self.last, value][-self.window :]
        if len(self.last) == self.window:
            self.lowest = min(self.lowest, self.now)

    @property
    def complete(self) -> bool:
        """True if there are `window` values."""
        return len(self.last) == self.window

    @property
    def beginning(self) -> float:
        """Mean of the first values."""
        return sum(self.first) / len(self.first)

    @property
    def now(self) -> float:
        """Mean of the last values."""
        return sum(self.last) / len(self.last)


@dataclass(frozen=True)
class FailureDetector(ABC):
    """Detector of one kind of failure in the history of one metric."""

    tag: str
    """TensorBoard tag of the metric."""
    meaning: str
    """Likely cause, and advice."""

    @abstractmethod
    def detect(self, history: MetricHistory) -> str | None:
        """Return the finding in a complete history, with its numbers; None without a finding."""

    def describe(self, history: MetricHistory) -> str | None:
        """Return the warning; None without a finding, or if the history is incomplete."""
        finding = self.detect(history) if history.complete else None
        return finding and f"{self.tag} {finding}: {self.meaning}"


@dataclass(frozen=True)
class Drop(FailureDetector):
    """Drop below the beginning by more than an amount."""

    amount: float
    """Largest drop, in the unit of the metric."""

    def detect(self, history: MetricHistory) -> str | None:
        """Compare with the beginning."""
        if history.now < history.beginning - self.amount:
            return f"fell from {history.beginning:.3g} to {history.now:.3g}"
        return None


@dataclass(frozen=True)
class RelativeDrop(FailureDetector):
    """Drop below a fraction of the beginning."""

    fraction: float
    """Smallest fraction of the beginning."""

    def detect(self, history: MetricHistory) -> str | None:
        """Compare with the beginning."""
        if history.now < self.fraction * history.beginning:
            return f"shrank from {history.beginning:.3g} to {history.now:.3g}"
        return None


@dataclass(frozen=True)
class Increase(FailureDetector):
    """Increase to several times the lowest value, by at least an amount."""

    factor: float
    """Largest multiple of the lowest value."""
    amount: float
    """Smallest increase, in the unit of the metric; a multiple of almost 0 is still small."""

    def detect(self, history: MetricHistory) -> str | None:
        """Compare with the lowest value."""
        if history.now > max(self.factor * history.lowest, history.lowest + self.amount):
            return f"rose from {history.lowest:.3g} to {history.now:.3g}"
        return None


@dataclass(frozen=True)
class AboveLimit(FailureDetector):
    """Metric above a limit."""

    limit: float
    """Limit, in the unit of the metric."""

    def detect(self, history: MetricHistory) -> str | None:
        """Compare with the limit."""
        return f"is {history.now:.4g}, above {self.limit:.4g}" if history.now > self.limit else None


@dataclass(frozen=True)
class Constant(FailureDetector):
    """Metric at exactly one of some values for a whole window."""

    values: tuple[float, ...]
    """Values that the metric should not stay at."""

    def detect(self, history: MetricHistory) -> str | None:
        """Compare the last values with each other."""
        if history.last[0] in self.values and len(set(history.last)) == 1:
            return f"was {history.now:g} for {history.window} steps"
        return None
