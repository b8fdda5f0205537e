"""Check of the classes that a configuration names, before any of them is instantiated."""

import inspect
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import Path
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fireopd.cli.entry_points import GROUPS
from fireopd.errors import UserError

__all__ = ["check_class_paths", "command_line_key", "find_class_paths", "sections"]

CALLABLES: dict[str, tuple[tuple[type, ...], str, str]] = {
    "model.optimizer": ((Optimizer,), "an optimizer", "use a subclass of torch.optim.Optimizer"),
    "model.scheduler": (
        (LRScheduler, ReduceLROnPlateau),
        "a learning-rate scheduler",
        "use a class of torch.optim.lr_scheduler or a subclass of one",
    ),
}
"""Base classes, description and remedy by key of a setting that is called later, with more arguments."""
HARMLESS = (type, Path, *GROUPS.values())
"""Types of callables that settings may hold: classes, files, and plug-ins, which are defaults."""


def check_class_paths(settings: Namespace) -> None:
    """Check that every import path names a class, and the base classes of optimizer and scheduler.

    jsonargparse checks the base class of all other settings, but calls a function that is named instead of a class, and
    passes a function that is named as an argument.

    Raises:
        UserError: if a setting names a function or another callable, or a class of another kind.
    """
    for key, path in find_class_paths(settings):
        if not isinstance(_resolve(path), type):
            remedy = "name an importable class; a configuration cannot call functions"
            raise UserError(command_line_key(key), path, "not a class", remedy)
    for key, (bases, kind, remedy) in CALLABLES.items():
        value = settings.get(key, settings.get(f"fit.{key}"))
        named = _resolve(value["class_path"]) if isinstance(value, Namespace) else value
        if named is not None and not (isinstance(named, type) and issubclass(named, bases)):
            shown = value["class_path"] if isinstance(value, Namespace) else getattr(value, "__name__", str(value))
            raise UserError(key, shown, f"not {kind}", remedy)
    for key, value in _callables(settings):
        problem = "not a class: a configuration cannot name functions or other callables"
        name = getattr(value, "__qualname__", type(value).__qualname__)
        raise UserError(command_line_key(key), name, problem, "omit it, or write a class that calls it")


def find_class_paths(value: Any) -> Iterator[tuple[str, object]]:
    """Yield the key and the value of every `class_path` in a value.

    Values that are instantiated contain none, except in settings of plain data.
    """
    yield from ((key, values["class_path"]) for key, values in sections(value) if "class_path" in values)


def sections(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every group of settings with its key, the groups within a group after it."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        yield key, {name: vars(own) if isinstance(own, Namespace) else own for name, own in value.items()}
        for name, own in value.items():
            yield from sections(own, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple | set | frozenset):
        for place, own in enumerate(value):
            yield from sections(own, f"{key}[{place}]")


def _callables(settings: Namespace) -> Iterator[tuple[str, object]]:
    """Yield key and value of every callable that is no class, no plug-in and not the default of its argument."""
    for key, values in sections(settings):
        if key.endswith("init_args"):  # seen with its class
            continue
        path = values.get("class_path")
        defaults = _defaults(_resolve(path)) if path is not None else {}
        own = values.get("init_args") or {} if path is not None else values
        for name, value in own.items():
            for part in value if isinstance(value, list | tuple) else [value]:
                if callable(part) and not isinstance(part, HARMLESS) and part is not defaults.get(name):
                    yield f"{key}.{name}".lstrip("."), part


def _defaults(kind: Any) -> dict[str, object]:
    """Return the defaults of a constructor."""
    try:
        return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    except (TypeError, ValueError):
        return {}


def command_line_key(key: str) -> str:
    """Return the key of a setting as it is written on the command line."""
    return key.removeprefix("fit.").replace(".init_args", "")


def _resolve(path: object) -> Any:
    """Return the object at an import path; None if there is none."""
    try:
        return resolve_name(path) if isinstance(path, str) else None
    except (ImportError, AttributeError, ValueError):
        return None
