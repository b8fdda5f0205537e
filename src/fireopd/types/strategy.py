"""Base class of filters, weighters and objectives, and the errors of their contracts."""

from collections.abc import Iterable
from typing import ClassVar, Self

from fireopd.errors import UserError
from fireopd.types.signals import SIGNALS


class Strategy:
    """What filters, weighters and objectives have in common: they read signals, and say which."""

    setting: ClassVar[str]
    """The setting of a run that such a strategy stands in."""
    check: ClassVar[str]
    """The function of `fireopd.testing` that examines such a strategy."""

    @property
    def requires(self) -> frozenset[str]:
        """The names of the signals that it reads. A subclass may simply assign a frozenset."""
        return frozenset()

    @property
    def by_trajectory(self) -> bool:
        """Whether its answer about a trajectory depends on that trajectory alone: it may then be asked piece by piece.

        A subclass may simply assign True. What a class says is not inherited: its subclasses may answer otherwise.
        """
        return False

    def __init_subclass__(cls) -> None:
        """Forget what the parent says of itself."""
        super().__init_subclass__()
        if "by_trajectory" not in vars(cls):
            cls.by_trajectory = Strategy.by_trajectory  # type: ignore[method-assign]


class ContractError(UserError):
    """A strategy answers or reads what its contract forbids, which the strategy's author can mend."""

    @classmethod
    def by(cls, strategy: Strategy, problem: str, remedy: str) -> Self:
        """Return the error of a strategy; the remedy starts with a verb in the imperative."""
        name = type(strategy).__name__
        return cls(
            strategy.setting, name, problem, f"{remedy}; fireopd.testing.{strategy.check} examines all of {name}"
        )


class UndeclaredSignalError(ContractError):
    """A strategy reads a signal that it does not list in `requires`."""


def union(strategies: Iterable[Strategy]) -> frozenset[str]:
    """Return all the signals that any of the strategies declares.

    Raises:
        ValueError: if one of them declares a signal that does not exist.
    """
    declared: frozenset[str] = frozenset()
    for strategy in strategies:
        unknown = sorted(strategy.requires - SIGNALS.keys())
        if unknown:
            name = type(strategy).__name__
            raise ValueError(f"{name}.requires: {unknown[0]!r} is no signal. The signals are {', '.join(SIGNALS)}.")
        declared |= strategy.requires
    return declared
