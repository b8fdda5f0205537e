"""Base class of filters, weighters and objectives, and the errors of their contract."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from fireopd.errors import UserError
from fireopd.types.schedule import accept_schedules
from fireopd.types.signals import SIGNALS

__all__ = ["ContractError", "Strategy", "UndeclaredSignalError", "union"]


class Strategy:
    """Common base of filters, weighters and objectives: declares the signals that a strategy reads."""

    setting: ClassVar[str]
    """Key of the run's setting that takes this kind of strategy."""
    check: ClassVar[str]
    """Function of `fireopd.testing` that tests this kind of strategy."""

    @property
    def requires(self) -> frozenset[str]:
        """Names of the signals that the strategy reads. A subclass may assign a frozenset."""
        return frozenset()

    @property
    def by_trajectory(self) -> bool:
        """True if the answer for a trajectory depends on that trajectory only, so that rows may be passed separately.

        A subclass may assign True. The value is not inherited: a subclass that does not set it gets False.
        """
        return False

    @property
    def needs_groups(self) -> bool:
        """True if rewards matter by comparison of the responses to one prompt only, so that it needs at least two.

        A subclass may assign True.
        """
        return False

    def at(self, policy_version: int) -> Any:
        """Return the strategy that is in effect at an optimizer step: this one, unless it changes with the step."""
        return self

    def changes(self, policy_version: int) -> dict[str, float]:
        """Return the values of scheduled settings at an optimizer step by name, those of parts after their place."""
        values = {place: part.changes(policy_version) for place, part in _parts(self)}
        return {f"{place}/{name}": value for place, own in values.items() for name, value in own.items()}

    def __init_subclass__(cls) -> None:
        """Let numeric settings accept schedules, and reset `by_trajectory` to its default unless the class sets it."""
        super().__init_subclass__()
        accept_schedules(cls)
        if "by_trajectory" not in vars(cls):
            cls.by_trajectory = Strategy.by_trajectory  # type: ignore[method-assign]


def _parts(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    """Yield the strategies among the settings of a strategy, each with its place."""
    names: list[str] = [setting.name for setting in fields(strategy)] if is_dataclass(strategy) else []
    for name in names:
        value = getattr(strategy, name)
        if isinstance(value, Strategy):
            yield name, value
        elif isinstance(value, list | tuple):
            yield from ((f"{name}/{place}", part) for place, part in enumerate(value) if isinstance(part, Strategy))


class ContractError(UserError):
    """Violation of a plug-in's contract: an invalid result, or an undeclared signal."""

    @classmethod
    def of(cls, key: str, plugin: object, check: str, problem: str, remedy: str) -> Self:
        """Return the error of any plug-in.

        Args:
            key: setting that holds the plug-in, for example `model.teachers.math`.
            plugin: the plug-in, named by its class.
            check: function of `fireopd.testing` that tests plug-ins of this kind.
            problem: the invalid result.
            remedy: starts with an imperative verb.
        """
        name = type(plugin).__name__
        return cls(key, name, problem, f"{remedy}; fireopd.testing.{check} tests the contract of {name}")

    @classmethod
    def by(cls, strategy: Strategy, problem: str, remedy: str) -> Self:
        """Return the error of a strategy; the remedy starts with an imperative verb."""
        return cls.of(strategy.setting, strategy, strategy.check, problem, remedy)


class UndeclaredSignalError(ContractError):
    """Access to a signal that the strategy does not list in `requires`."""


def union(strategies: Iterable[Strategy]) -> frozenset[str]:
    """Return all signals that any of the strategies declares.

    Raises:
        ContractError: if a strategy declares an unknown signal.
    """
    declared: frozenset[str] = frozenset()
    for strategy in strategies:
        unknown = sorted(strategy.requires - SIGNALS.keys())
        if unknown:
            close = get_close_matches(unknown[0], SIGNALS, n=1)
            remedy = f"write {close[0]!r} in requires" if close else f"use signals: {', '.join(SIGNALS)}"
            raise ContractError.by(strategy, f"requires {unknown[0]!r}, which is not a signal", remedy)
        declared |= strategy.requires
    return declared
