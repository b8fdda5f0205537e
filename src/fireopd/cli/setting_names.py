"""Full names of settings in messages of jsonargparse, which name a setting without the class that has it."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch import loggers

from fireopd import callbacks
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.scheduled_settings import looks_scheduled
from fireopd.errors import UserError
from fireopd.types.schedule import Schedule

__all__ = [
    "FILE",
    "alternatives",
    "check_config_files",
    "full_name",
    "given_settings",
    "parsed",
    "place_of_missing",
    "unknown_class",
    "unknown_item",
]

FILE = "config"
"""Name of the option of configuration files."""
LISTS = ("trainer.logger", "trainer.callbacks")
"""Settings that may be lists of class names."""


def given_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values in arguments and their configuration files by dotted name; later ones replace earlier ones."""
    found: dict[str, Any] = {}

    def replace(name: str, value: Any) -> None:
        """Set the values of a setting; a class replaces another one, however the two are written."""
        for key, own in _flat(value, name):
            found.pop(f"{key}.class_path", None)
            found.pop(key.removesuffix(".class_path"), None)
            found[key] = own

    pending = list(arguments)
    while pending:
        name, equals, value = pending.pop(0).partition("=")
        if not name.startswith("--"):
            continue
        if not equals and pending and not pending[0].startswith("--"):
            value = pending.pop(0)
        if name == f"--{FILE}":
            content = parsed(_text(value))
            if isinstance(content, Mapping) and content:
                replace("", content)
        elif name.endswith("+"):
            key, items = name.removeprefix("--").rstrip("+"), parsed(value)
            for item in items if isinstance(items, list) else [items]:
                replace(f"{key}[{_length(key, found)}]", item)
        else:
            replace(name.removeprefix("--"), parsed(value))
    return found


def _length(key: str, settings: Mapping[str, Any]) -> int:
    """Return the number of items of a list that settings give."""
    return len({own.removeprefix(f"{key}[").partition("]")[0] for own in settings if own.startswith(f"{key}[")})


def check_config_files(arguments: Sequence[str]) -> None:
    """Check that configuration files are mappings of settings; files that do not exist are left to the parser.

    Raises:
        UserError: if a file cannot be parsed as YAML, is empty or has another form.
    """
    for place, argument in enumerate(arguments):
        name, equals, path = argument.partition("=")
        path = path if equals else next(iter(arguments[place + 1 :]), "")
        if name != f"--{FILE}" or not Path(path).is_file():
            continue
        try:
            content = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise UserError("--config", path, f"cannot be read: {error.strerror}", "check its permissions") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            reason = str(getattr(error, "problem", error))
            reason = f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else reason
            raise UserError("--config", path, f"not YAML: {reason}", "fix the file") from error
        if not isinstance(content, Mapping):
            problem = "the file is empty" if content is None else "the file is not a mapping of settings"
            raise UserError("--config", path, problem, "write settings, such as model: {student: tiny/student}")


def full_name(name: str, settings: Mapping[str, Any]) -> str:
    """Return the dotted name of a given setting whose last part is known; the name itself if it is not given.

    The parser names the first key of a schedule with its setting.
    """
    setting, _, key = name.rpartition(".")
    names = (name, setting) if setting and key in Schedule.__annotations__ else (name,)
    places = list(settings)[::-1]
    above = [place for full in places for place in _above(full)]
    return next((full for own in names for full in (*places, *above) if full.rpartition(".")[2] == own), name)


def _above(place: str) -> Iterator[str]:
    """Yield the settings that contain a setting, the nearest first; lists without a number."""
    while place := place.rpartition("[" if place.endswith("]") else ".")[0]:
        yield place


def unknown_class(key: str, group: str, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return setting and name of the first class in a mapping that is no plug-in of a group; None if there is none.

    Args:
        key: setting that holds a mapping of plug-ins, such as `model.teachers`.
        group: their entry-point group.
        settings: given settings by dotted name.
    """
    known = {plugin.name for plugin in load_plugins() if plugin.group == group}
    for place, value in settings.items():
        setting = place.removesuffix(".class_path")
        is_class = setting.rpartition(".")[0] == key and isinstance(value, str)
        if is_class and value not in known and not ("." in value and _class_at(setting, settings)):
            return setting, value
    return None


def unknown_item(key: str, known: Sequence[str], settings: Mapping[str, Any]) -> str | None:
    """Return the first class in a list that is neither known nor an import path; None if there is none.

    Args:
        key: setting that holds the list, such as `trainer.callbacks`.
        known: names of classes.
        settings: given settings by dotted name.
    """
    items = ((place.removesuffix(".class_path"), str(value)) for place, value in settings.items())
    listed = (value for item, value in items if item.startswith(f"{key}[") and item.endswith("]"))
    return next((value for value in listed if value not in known and not _importable(value)), None)


def _importable(path: str) -> bool:
    try:
        return "." in path and bool(resolve_name(path))
    except (ImportError, AttributeError, ValueError):
        return False


def alternatives(key: str, settings: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the setting with a name close to that of `key`, and a text on all settings of the class that has it."""
    parent, _, name = key.rpartition(".")
    kind = _class_at(parent, settings)
    if kind is None:
        return None, ""
    names = list(_parameters(kind))
    close = get_close_matches(name, names, n=1)
    return (close[0] if close else None), f"settings of {kind.__name__}: {', '.join(names) or 'none'}"


def place_of_missing(name: str, settings: Mapping[str, Any]) -> str:
    """Return the dotted name of a required setting that no argument gives; the name itself if its class is unknown."""
    for key in settings:
        parent = key.removesuffix(".class_path")
        kind = _class_at(parent, settings)
        parameter = None if kind is None else _parameters(kind).get(name)
        if parameter and parameter.default is Parameter.empty and f"{parent}.{name}" not in settings:
            return f"{parent}.{name}"
    return name


def _class_at(key: str, settings: Mapping[str, Any]) -> type | None:
    path = settings.get(f"{key}.class_path", settings.get(key))
    if not isinstance(path, str):
        return None
    known = {plugin.strategy.__name__: plugin.strategy for plugin in load_plugins()}
    if path.rpartition(".")[2] in known:
        return known[path.rpartition(".")[2]]
    named = (getattr(module, path, None) for module in (loggers, callbacks, lightning_callbacks))
    try:
        found = next(filter(None, named), None) or resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def _parameters(kind: type) -> dict[str, Parameter]:
    given_later = ("params", "optimizer")  # those of optimizers and schedulers
    return {name: own for name, own in signature(kind).parameters.items() if name not in given_later}


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and not looks_scheduled(value):
        for name, own in value.items():
            yield from _flat(own, key if name == "init_args" else f"{key}.{name}".strip(".+"))
    elif isinstance(value, list) and (key in LISTS or any(isinstance(item, Mapping) for item in value)):
        for place, own in enumerate(value):
            yield from _flat(own, f"{key}[{place}]")
    else:
        yield key, value


def parsed(text: str | bytes) -> Any:
    """Return a text as YAML; the text itself if it is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # the latter of dates and numbers
        return text


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""
