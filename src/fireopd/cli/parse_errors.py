"""All errors of a command's settings at once: after an error, the rest is checked without the setting at fault."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
    found: list[UserError | str] = [*first.each] if isinstance(first, UserError) else [str(first)]
    with suppress(OSError, RecursionError), TemporaryDirectory() as folder:
        if not any(map(_read_once, arguments)):
            found = _Search(arguments, Path(folder)).errors(first, check)
    users = [error for error in found if isinstance(error, UserError)]
    if len(users) == len(found):
        raise_together(users)
    for text in dict.fromkeys(map(str, found)):
        print(f"fireopd: {text}", file=sys.stderr)
    if len(found) >= MOST:
        print(f"fireopd: the search for errors ended after {MOST}.", file=sys.stderr)
    sys.exit(2)


def _read_once(argument: str) -> bool:
    """Return whether an argument prints a configuration, or names one that cannot be read again, such as a pipe."""
    path = Path(argument.rpartition("=")[2])
    return argument.startswith("--print_config") or (path.exists() and not (path.is_file() or path.is_dir()))


class _Search:
    """Search for the errors of arguments; what was found, and how to leave it out."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        """Start with all arguments; copies of configuration files are written to subfolders of the folder."""
        self.rest, self.folder = list(arguments), folder
        self.copies = 0
        self.removed: list[str] = []
        """Settings of which no value is left: errors of their defaults are none of the user."""
        self.shortened: list[str] = []
        """Lists without some of their items."""

    def errors(self, error: Error, check: Callable[[Sequence[str]], Any]) -> list[UserError | str]:
        """Return all errors, the first one included."""
        found = list[UserError | str]()
        for _ in range(2 * MOST):
            place, value = _place(str(error))
            if not any(_below(place, own) for own in self.removed):
                found += error.each if isinstance(error, UserError) else [self._without_indices(str(error))]
            if len(found) >= MOST or not self._leave_out(place, value):
                break
            try:
                check(self.rest)
            except (ParseError, UserError) as other:
                error = other
            except (Exception, SystemExit):
                break
            else:
                break
        return found

    def _leave_out(self, place: str, value: str | None) -> bool:
        """Remove a value of a setting, or all if none is named; return False if no argument gives it."""
        given = given_settings(self.rest)
        left = self._without(self.rest, place, value) if value is not None else None
        if left is None:
            left = self._without(self.rest, place, None)
        elif any(key.startswith(f"{place}[") and value == str(own) for key, own in given.items()):
            self.shortened.append(place)
        elif value in (str(given.get(place)), str(given.get(f"{place}.class_path"))):
            others = [key for key in given_settings(left) if key.startswith(f"{place}.")]
            if others:  # settings of the class at fault, given on their own
                left = self._without(left, place, None) or left
        self.rest = self.rest if left is None else left
        if not any(_below(key, place) for key in given_settings(self.rest)):
            self.removed.append(place)
        return left is not None

    def _without(self, arguments: Sequence[str], place: str, value: str | None) -> list[str] | None:
        self.copies += 1
        return without(arguments, place, self.folder / str(self.copies), value)

    def _without_indices(self, text: str) -> str:
        """Return a message that gives no number of an item where items before it were left out."""
        for place in self.shortened:
            text = re.sub(rf"^{re.escape(place)}\[\d+\]", f"{place}[...]", text)
        return text


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
        value: value at fault, if only it, the class of this name, or such items of lists are removed; None for all.
    """
    kept, pending = list[str](), list(arguments)
    while pending:
        words = [pending.pop(0)]
        name, equals, text = words[0].partition("=")
        if name.startswith("--") and not equals and pending and not pending[0].startswith("--"):
            text = pending.pop(0)
            words.append(text)
        is_file = name in ("--config", "-c")
        given = _yaml(Path(text).read_bytes()) if is_file and Path(text).is_file() else _yaml(text)
        left = _without(given, place, "" if is_file else name.removeprefix("--").rstrip("+"), value)
        if left is GONE:
            words = []
        elif left != given and is_file:
            words = [name, str(_copy(Path(text), left, folder / str(len(kept))))]
        elif left != given:
            words = [name, yaml.safe_dump(left, default_flow_style=True).strip()]
        kept += words
    return None if kept == list(arguments) else kept


def _yaml(text: str | bytes) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # of dates, numbers and encodings
        return None


def _below(key: str, place: str) -> bool:
    key = key.removesuffix(".class_path").replace(".init_args.", ".")
    return f"{key}.".startswith(f"{place}.") or key.startswith(f"{place}[")


def _without(given: Any, place: str, key: str, value: str | None) -> Any:
    """Return a value whose dotted name is `key` without what is at a place; `GONE` if nothing is left."""
    if _below(key, place) and (value is None or _named(given, value)):
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
