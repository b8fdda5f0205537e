"""Discovery of plug-ins by their entry points; built-in classes are registered the same way.

The name of an entry point is the name of its class, so that a configuration can use the bare class name.
"""

import inspect
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from fireopd.engines import RolloutEngine
from fireopd.errors import UserError
from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.prompts import PromptSource
from fireopd.teachers import Teacher
from fireopd.types.strategy import Strategy
from fireopd.verifiers import Verifier
from fireopd.weighters import TokenWeighter

__all__ = ["GROUPS", "Plugin", "load_plugins"]

GROUPS: dict[str, type] = {
    "fireopd.filters": TrajectoryFilter,
    "fireopd.weighters": TokenWeighter,
    "fireopd.objectives": Objective,
    "fireopd.teachers": Teacher,
    "fireopd.engines": RolloutEngine,
    "fireopd.prompts": PromptSource,
    "fireopd.verifiers": Verifier,
}
"""Base class of the plug-ins by entry-point group."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """Installed plug-in."""

    group: str
    """Entry-point group."""
    package: str
    """Distribution that provides the plug-in."""
    strategy: type
    """Class of the plug-in."""

    @property
    def summary(self) -> str:
        """First line of the docstring of the class."""
        return (inspect.getdoc(self.strategy) or "").partition("\n")[0]

    @property
    def signals(self) -> str:
        """Required signals as text; empty for classes that are not strategies."""
        if not issubclass(self.strategy, Strategy):
            return ""
        requires = inspect.getattr_static(self.strategy, "requires")
        declares = requires is not vars(Strategy)["requires"]
        read = sorted(requires) if isinstance(requires, frozenset) else ["depends on its settings"] * declares
        return ", ".join(["distributions"] * issubclass(self.strategy, DirectObjective) + read) or "none"


def load_plugins() -> list[Plugin]:
    """Import the plug-ins of all groups, so that a configuration can name them.

    Raises:
        UserError: if an entry point cannot be imported or has a wrong type or name.
    """
    found = []
    for group, base in GROUPS.items():
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
            package = entry.dist.name if entry.dist else "?"
            found.append(Plugin(group, package, _load(entry, base, package)))
    return found


def _load(entry: EntryPoint, base: type, package: str) -> type:
    key, remedy = f"{entry.group}: {entry.name}", f"fix the package {package}, or uninstall it"
    try:
        strategy = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(key, entry.value, f"this plug-in cannot be imported: {error}", remedy) from error
    if not (inspect.isclass(strategy) and issubclass(strategy, base)):
        raise UserError(key, entry.value, f"this plug-in is not a subclass of {base.__name__}", remedy)
    if strategy.__name__ != entry.name:
        problem = f"the entry point must have the name of its class, {strategy.__name__}"
        raise UserError(key, entry.value, problem, remedy)
    return cast(type, strategy)
