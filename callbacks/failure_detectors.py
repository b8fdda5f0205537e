"""What a run looks like when it goes wrong: each symptom reads the course of one number of the training steps."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field


@dataclass
class Course:
    """A number over the steps: how it began, how it is now, how low it has been."""

    window: int
    """Steps that are averaged, so that one odd batch is not taken for a change."""
    first: list[float] = field(default_factory=list)
    """The first `window` values."""
    last: list[float] = field(default_factory=list)
    """The last `window` values."""
    lowest: float = math.inf
    """The smallest mean of `window` values in a row."""

    def add(self, value: float) -> None:
        """Take in the value of a step; one that is not finite is left to the step's guard."""
        if not math.isfinite(value):
            return
        if len(self.first) < self.window:
            self.first.append(value)
        self.last = [*self.last, value][-self.window :]
        if len(self.last) == self.window:
            self.lowest = min(self.lowest, self.now)

    @property
    def complete(self) -> bool:
        """Whether there are enough values to judge."""
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
class Symptom(ABC):
    """Something that can be seen in the course of one number."""

    tag: str
    """The number, by its TensorBoard tag."""
    meaning: str
    """What it is a sign of, and what to look at."""

    @abstractmethod
    def shows(self, course: Course) -> str | None:
        """Return what is seen in a complete course, in numbers; none if all is well."""

    def describe(self, course: Course) -> str | None:
        """Return the warning; none if all is well, or if it is too early to tell."""
        seen = self.shows(course) if course.complete else None
        return seen and f"{self.tag} {seen}: {self.meaning}"


@dataclass(frozen=True)
class Fall(Symptom):
    """The number has fallen, against its own beginning, by more than an amount."""

    amount: float
    """In the unit of the number."""

    def shows(self, course: Course) -> str | None:
        """Compare with the beginning."""
        if course.now < course.beginning - self.amount:
            return f"fell from {course.beginning:.3g} to {course.now:.3g}"
        return None


@dataclass(frozen=True)
class Vanishing(Symptom):
    """Less than a share is left of what the number was at its beginning."""

    share: float
    """Of the beginning."""

    def shows(self, course: Course) -> str | None:
        """Compare with the beginning."""
        if course.now < self.share * course.beginning:
            return f"shrank from {course.beginning:.3g} to {course.now:.3g}"
        return None


@dataclass(frozen=True)
class Rise(Symptom):
    """The number is several times as large as it has been at its lowest, by at least an amount."""

    factor: float
    """Times the lowest."""
    amount: float
    """What it has to rise by at least, in its unit: several times next to nothing is still nothing."""

    def shows(self, course: Course) -> str | None:
        """Compare with the lowest."""
        if course.now > max(self.factor * course.lowest, course.lowest + self.amount):
            return f"rose from {course.lowest:.3g} to {course.now:.3g}"
        return None


@dataclass(frozen=True)
class Above(Symptom):
    """The number is above a limit."""

    limit: float
    """In its unit."""

    def shows(self, course: Course) -> str | None:
        """Compare with the limit."""
        return f"is {course.now:.4g}, above {self.limit:.4g}" if course.now > self.limit else None


@dataclass(frozen=True)
class Stuck(Symptom):
    """The number has been at one of some values, exactly, for a whole window."""

    values: tuple[float, ...]
    """Those that it should not stay at."""

    def shows(self, course: Course) -> str | None:
        """Look at each of the last values."""
        if course.last[0] in self.values and len(set(course.last)) == 1:
            return f"was {course.now:g} for {course.window} steps"
        return None
