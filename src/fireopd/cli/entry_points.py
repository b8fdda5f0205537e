"""Discovery of plug-ins by their entry points; built-in classes are registered the same way.

The name of an entry point is the name of its class, so that a configuration can use the bare class name.
"""

import gc
import inspect
import sys
from copy import copy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from traceback import walk_tb
from typing import cast

from fireopd.engines import RolloutEngine
from fireopd.errors import UserError
from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.plans import RolloutPlan
from fireopd.prompts import PromptSource
from fireopd.teachers import Teacher
from fireopd.types.strategy import Strategy
from fireopd.verifiers import Verifier
from fireopd.weighters import TokenWeighter

__all__ = ["GROUPS", "BrokenPlugin", "Plugin", "broken_plugins", "failed_import", "load_plugins"]

GROUPS: dict[str, type] = {
    "fireopd.filters": TrajectoryFilter,
    "fireopd.weighters": TokenWeighter,
    "fireopd.objectives": Objective,
    "fireopd.teachers": Teacher,
    "fireopd.engines": RolloutEngine,
    "fireopd.plans": RolloutPlan,
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
    def name(self) -> str:
        """Name of the class."""
        return self.strategy.__name__

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


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """Installed plug-in that cannot be used. It is skipped: only a configuration that names it is refused."""

    group: str
    """Entry-point group."""
    package: str
    """Distribution that provides the plug-in."""
    name: str
    """Name of the entry point, that of its class."""
    value: str
    """Module and class of the entry point."""
    error: UserError
    """Reason."""


def load_plugins() -> list[Plugin]:
    """Import the plug-ins of all groups, so that a configuration can name them. Broken ones are skipped."""
    return [plugin for plugin in _discovered(tuple(sys.path)) if isinstance(plugin, Plugin)]


def broken_plugins() -> list[BrokenPlugin]:
    """Return the plug-ins of all groups that cannot be imported, have a wrong type or name, or lack a method."""
    return [plugin for plugin in _discovered(tuple(sys.path)) if isinstance(plugin, BrokenPlugin)]


def failed_import(error: BaseException) -> UserError | None:
    """Return the error of a module that a configuration names and that cannot be imported.

    Args:
        error: raised by jsonargparse, possibly by the import of a named module: its traceback tells.

    Returns:
        The error of the plug-in in this module, or one that names the module; None for other errors.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    named = [frame.f_globals.get("__name__", "") for frame in frames]
    start = next((place for place, name in enumerate(named) if name.startswith("jsonargparse")), len(frames))
    modules = [name for frame, name in zip(frames, named, strict=True) if frame.f_code.co_name == "<module>"]
    modules = [name for name in modules if name in named[start:]]
    if not modules:
        return None
    known = next((broken for broken in broken_plugins() if broken.value.partition(":")[0] in modules), None)
    if known is not None:
        return copy(known.error)  # raised, it holds a traceback
    return UserError("class_path", modules[0], f"this module cannot be imported: {_reason(error)}", "fix the module")


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


@cache  # a scan reads files of all installed packages, and imports the plug-ins
def _discovered(_path: tuple[str, ...], /) -> list[Plugin | BrokenPlugin]:
    found: list[Plugin | BrokenPlugin] = []
    for entry, package in _installed():
        try:
            found.append(Plugin(entry.group, package, _load(entry, GROUPS[entry.group], package)))
        except UserError as error:
            found.append(BrokenPlugin(entry.group, package, entry.name, entry.value, error))
    if any(isinstance(plugin, BrokenPlugin) for plugin in found):
        # Classes of a module that failed later are still subclasses of ours, and jsonargparse would import it again.
        gc.collect()
    return found


def _installed() -> list[tuple[EntryPoint, str]]:
    """Return the entry points of all groups, sorted by group and name, each with the name of its package."""
    found = entry_points()
    entries = [entry for group in GROUPS for entry in sorted(found.select(group=group), key=lambda entry: entry.name)]
    return [(entry, entry.dist.name if entry.dist else "?") for entry in entries]


def _load(entry: EntryPoint, base: type, package: str) -> type:
    """Return the class of an entry point.

    Raises:
        UserError: if it cannot be imported, has a wrong type or name, or lacks a method. It holds no traceback, which
            would keep the classes of a module that fails.
    """
    problem = ""
    key, remedy = f"{entry.group}: {entry.name}", f"fix the package {package}, or uninstall it"
    try:
        strategy = entry.load()
    except (Exception, SystemExit) as error:  # a module can raise anything, or end the program
        problem = f"this plug-in cannot be imported: {_reason(error)}"
    if problem:
        raise UserError(key, entry.value, problem, remedy)
    if not (inspect.isclass(strategy) and issubclass(strategy, base)):
        raise UserError(key, entry.value, f"this plug-in is not a subclass of {base.__name__}", remedy)
    if strategy.__name__ != entry.name:
        problem = f"the entry point must have the name of its class, {strategy.__name__}"
        raise UserError(key, entry.value, problem, remedy)
    if missing := sorted(getattr(strategy, "__abstractmethods__", ())):
        raise UserError(key, entry.value, f"this plug-in does not define {', '.join(missing)}", remedy)
    return cast(type, strategy)
