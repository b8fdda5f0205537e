"""All errors of a command's settings at once: after an error, the rest is checked without the setting at fault."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import yaml

from fireopd.cli.setting_names import given_settings
from fireopd.errors import UserError, raise_together

__all__ = ["ParseError", "report_all", "without"]

MOST = 20
"""Errors after which the search ends."""
GONE = object()
"""In place of a value of which nothing is left."""


class ParseError(SystemExit):
    """Error of the parser; its message starts with the setting.

    As a `SystemExit` it passes through jsonargparse, which takes other errors for one of several types that do not fit.
    """


Error = ParseError | UserError


def report_all(first: Error, arguments: Sequence[str], check: Callable[[Sequence[str]], Any]) -> NoReturn:
    """Print all errors of arguments and exit with code 2; errors that are all of the type `UserError` are raised.

    The search ends at an error that no given setting explains, such as a missing one.

    Args:
        first: first error.
        arguments: those of the command.
        check: raises `ParseError` or `UserError` at the first error of arguments.
    """
    found = _search(first, arguments, check)
    users = [error for error in found if isinstance(error, UserError)]
    if len(users) == len(found):
        raise_together(users)
    for text in dict.fromkeys(map(str, found)):
        print(f"fireopd: {text}", file=sys.stderr)
    sys.exit(2)


def _search(error: Error, arguments: Sequence[str], check: Callable[[Sequence[str]], Any]) -> list[Error]:
    found, removed = list[Error](), list[str]()
    rest = [argument for argument in arguments if not argument.startswith("--print_config")]
    with TemporaryDirectory() as folder:
        while len(found) < MOST:
            place, value = _place(str(error))
            if any(_below(place, own) for own in removed):
                break  # it is missing, or its default does not fit
            found += error.each if isinstance(error, UserError) else [error]
            copies = Path(folder) / str(len(found))
            rest = (value and without(rest, place, copies, value)) or without(rest, place, copies) or []
            if not rest:
                break
            if not any(_below(key, place) for key in given_settings(rest)):
                removed.append(place)
            try:
                check(rest)
            except (ParseError, UserError) as other:
                error = other
            except (Exception, SystemExit):
                break
            else:
                break
    return found


def _place(text: str) -> tuple[str, str | None]:
    """Return the setting that a message starts with, and the value that follows it."""
    place, _, problem = text.partition(": ")
    value = re.match(r"'([^']+)': ", problem)
    return place.removeprefix("argument ").removeprefix("--"), value and value[1]


def without(arguments: Sequence[str], place: str, folder: Path, value: str | None = None) -> list[str] | None:
    """Return arguments without a setting; None if none of them gives it.

    Args:
        arguments: those of a command.
        place: dotted name of the setting; all that is below it is removed, too.
        folder: folder for copies of configuration files without the setting; created if needed.
        value: value at fault, if only this value, class or item of a list is removed; None for all values.
    """
    kept, pending = list[str](), list(arguments)
    while pending:
        words = [pending.pop(0)]
        name, equals, text = words[0].partition("=")
        if name.startswith("--") and not equals and pending and not pending[0].startswith("--"):
            text = pending.pop(0)
            words.append(text)
        given = _yaml(Path(text).read_bytes()) if name == "--config" and Path(text).is_file() else _yaml(text)
        left = _without(given, place, "" if name == "--config" else name.removeprefix("--").rstrip("+"), value)
        if left is GONE:
            words = []
        elif left != given and name == "--config":
            words = [name, str(_copy(Path(text), left, folder / str(len(kept))))]
        elif left != given:
            words = [name, yaml.safe_dump(left, default_flow_style=True).strip()]
        kept += words
    return None if kept == list(arguments) else kept


def _yaml(text: str | bytes) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _below(key: str, place: str) -> bool:
    key = key.removesuffix(".class_path").replace(".init_args.", ".")
    return f"{key}.".startswith(f"{place}.") or key.startswith(f"{place}[")


def _without(given: Any, place: str, key: str, value: str | None) -> Any:
    """Return a value whose dotted name is `key` without what is at a place; `GONE` if nothing is left."""
    if _below(key, place) and value is None:
        return GONE
    if key == place:
        if isinstance(given, list):
            return [item for item in given if not _named(item, value)] or GONE
        return GONE if _named(given, value) else given
    if isinstance(given, Mapping) and given:
        full = {name: key if name == "init_args" else f"{key}.{name}".lstrip(".") for name in given}
        mapping = {name: _without(given[name], place, own, value) for name, own in full.items()}
        return {name: own for name, own in mapping.items() if own is not GONE} or GONE
    if isinstance(given, list) and given:
        items = [_without(own, place, f"{key}[{number}]", value) for number, own in enumerate(given)]
        return [own for own in items if own is not GONE] or GONE
    return given


def _named(item: Any, value: str | None) -> bool:
    return value == str(item.get("class_path") if isinstance(item, Mapping) else item)


def _copy(path: Path, content: Any, folder: Path) -> Path:
    """Write a configuration into a folder where the files that it may name are linked, and return its path."""
    folder.mkdir(parents=True)
    for other in path.absolute().parent.iterdir():
        if other.name != path.name:
            (folder / other.name).symlink_to(other)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(content, sort_keys=False))
    return copy
