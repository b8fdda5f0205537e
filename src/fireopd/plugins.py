"""Finds strategies in installed packages by their entry points; the built-in ones are found the same way.

The name of an entry point is the name of its class, so that a configuration can name a strategy by its bare class name.
"""

import inspect
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from fireopd.engines import RolloutEngine
from fireopd.filters import TrajectoryFilter
from fireopd.objectives import Objective
from fireopd.prompts import PromptSource
from fireopd.signals import Strategy
from fireopd.teachers import Teacher
from fireopd.verifiers import Verifier
from fireopd.weighters import TokenWeighter

GROUPS: dict[str, type] = {
    "fireopd.filters": TrajectoryFilter,
    "fireopd.weighters": TokenWeighter,
    "fireopd.objectives": Objective,
    "fireopd.teachers": Teacher,
    "fireopd.engines": RolloutEngine,
    "fireopd.prompts": PromptSource,
    "fireopd.verifiers": Verifier,
}
"""Entry-point groups and the class that everything in them extends."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A strategy that was found."""

    group: str
    """Entry-point group."""
    package: str
    """Distribution that it comes from."""
    strategy: type
    """The class."""

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.strategy) or "").partition("\n")[0]

    @property
    def signals(self) -> str:
        """The signals that it reads, in words."""
        if not issubclass(self.strategy, Strategy):
            return ""
        requires = inspect.getattr_static(self.strategy, "requires")
        if isinstance(requires, frozenset):
            return ", ".join(sorted(requires))
        return "none" if requires is vars(Strategy)["requires"] else "those of its parts"


def load_plugins() -> list[Plugin]:
    """Import every strategy of every group, so that the configuration can name it.

    Raises:
        TypeError: if an entry point names something that does not belong into its group.
    """
    found = []
    for group, base in GROUPS.items():
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
            package = entry.dist.name if entry.dist else "?"
            found.append(Plugin(group, package, _load(entry, base, package)))
    return found


def _load(entry: EntryPoint, base: type, package: str) -> type:
    place = f"{package}: the entry point {entry.name} = {entry.value} of the group {entry.group}"
    try:
        strategy = entry.load()
    except (ImportError, AttributeError) as error:
        raise TypeError(f"{place} cannot be imported: {error}") from error
    if not (inspect.isclass(strategy) and issubclass(strategy, base)):
        raise TypeError(f"{place} is no subclass of {base.__name__}")
    if strategy.__name__ != entry.name:
        raise TypeError(f"{place} must have the name of its class, {strategy.__name__}")
    return strategy
