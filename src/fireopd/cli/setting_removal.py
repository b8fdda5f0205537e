"""Removal of a setting from the arguments of a command and from the configuration files that they name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fireopd.cli.setting_names import FILE, parsed

__all__ = ["below", "without"]

GONE = object()
"""In place of a value of which nothing is left."""


def without(arguments: Sequence[str], place: str, folder: Path, value: str | None = None) -> list[str] | None:
    """Return arguments without a setting, or without a configuration file; None if none of them gives it.

    Args:
        arguments: those of a command.
        place: dotted name of the setting; all that is below it is removed, too. `FILE` for a configuration file.
        folder: folder for copies of configuration files without the setting; created if needed.
        value: value at fault, if only it, the class of this name, or such items of lists are removed; None for all.
            The path of a configuration file for the place `FILE`.
    """
    kept, pending = list[str](), list(arguments)
    while pending:
        words = [pending.pop(0)]
        name, equals, text = words[0].partition("=")
        if name.startswith("--") and not equals and pending and not pending[0].startswith("--"):
            text = pending.pop(0)
            words.append(text)
        is_file = name == f"--{FILE}"
        if is_file and place == FILE:
            kept += [] if value and Path(text).absolute() == Path(value).absolute() else words
            continue
        given = parsed(Path(text).read_bytes()) if is_file and Path(text).is_file() else parsed(text)
        left = _without(given, place, "" if is_file else name.removeprefix("--").rstrip("+"), value)
        if left is GONE:
            words = []
        elif left != given and is_file:
            words = [name, str(_copy(Path(text), left, folder / str(len(kept))))]
        elif left != given:
            words = [name, yaml.safe_dump(left, default_flow_style=True).strip()]
        kept += words
    return None if kept == list(arguments) else kept


def below(key: str, place: str) -> bool:
    """Return whether a dotted name is a setting or stands below it."""
    key = key.removesuffix(".class_path").replace(".init_args.", ".")
    return f"{key}.".startswith(f"{place}.") or key.startswith(f"{place}[")


def _without(given: Any, place: str, key: str, value: str | None) -> Any:
    """Return a value whose dotted name is `key` without what is at a place; `GONE` if nothing is left."""
    if below(key, place) and (value is None or _named(given, value)):
        return GONE
    if isinstance(given, Mapping) and given:
        full = {name: key if name == "init_args" else f"{key}.{name}".strip(".+") for name in given}
        mapping = {name: _without(given[name], place, own, value) for name, own in full.items()}
        return {name: own for name, own in mapping.items() if own is not GONE} or GONE
    if isinstance(given, list) and given:
        items = [_without(own, place, f"{key}[{number}]", value) for number, own in enumerate(given)]
        return [own for own in items if own is not GONE] or GONE
    return given


def _named(item: Any, value: str) -> bool:
    return value == str(item.get("class_path") if isinstance(item, Mapping) else item)


def _copy(path: Path, content: Any, folder: Path) -> Path:
    """Write a configuration into a folder and return its path; files that it names are named by absolute paths."""
    folder.mkdir(parents=True)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(_absolute(content, path.absolute().parent), sort_keys=False))
    return copy


def _absolute(content: Any, folder: Path) -> Any:
    if isinstance(content, Mapping):
        return {name: _absolute(own, folder) for name, own in content.items()}
    if isinstance(content, list):
        return [_absolute(own, folder) for own in content]
    is_file = isinstance(content, str) and content.endswith((".yaml", ".yml", ".json")) and (folder / content).is_file()
    return str(folder / content) if is_file else content
