"""All errors of a command's settings at once: after an error, the rest is checked without the setting at fault."""

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from fireopd.cli.setting_names import given_settings, required_type
from fireopd.cli.setting_removal import below, without
from fireopd.errors import UserError, raise_together

__all__ = ["ParseError", "report_all"]

EXAMPLES = {"str": "missing", "Path": "missing", "int": "1", "float": "1.0"}
"""Values in place of missing settings, by name of their type."""
FILE = "config"
"""Place of a configuration file."""
MOST = 20
"""Errors after which the search ends."""


class ParseError(SystemExit):
    """Error of the parser; its message starts with the setting.

    As a `SystemExit` it passes through jsonargparse, which takes other errors for one of several types that do not fit.
    """


Error = ParseError | UserError


def report_all(first: Error, arguments: Sequence[str], check: Callable[[Sequence[str]], Any]) -> NoReturn:
    """Print all errors of arguments and exit with code 2; errors that are all of the type `UserError` are raised.

    The search ends at an error that no given setting explains. What is missing after an unreadable file was left out is
    no error: the file may give it.

    Args:
        first: first error.
        arguments: those of the command.
        check: raises `ParseError` or `UserError` at the first error of arguments.
    """
    found: list[UserError | str] = [*first.each] if isinstance(first, UserError) else [str(first)]
    with suppress(OSError, RecursionError), TemporaryDirectory() as folder:
        if not any(map(_unrepeatable, arguments)):
            found = _Search(arguments, Path(folder)).errors(first, check)
    users = [error for error in found if isinstance(error, UserError)]
    if len(users) == len(found):
        raise_together(users)
    for text in dict.fromkeys(map(str, found)):
        print(f"fireopd: {text}", file=sys.stderr)
    if len(found) >= MOST:
        print(f"fireopd: the search for errors ended after {MOST}.", file=sys.stderr)
    sys.exit(2)


def _unrepeatable(argument: str) -> bool:
    """Return whether an argument must not be parsed again: it prints a configuration, or names a pipe."""
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
            if not any(below(place, own) for own in self.removed) and not self._may_be_in_a_file(place):
                found += error.each if isinstance(error, UserError) else [self._without_indices(str(error))]
            if len(found) >= MOST or not (self._leave_out(place, value) or self._fill_in(place)):
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
        if left is None:
            return False
        self.rest = left
        if not any(below(key, place) for key in given_settings(self.rest)):
            self.removed.append(place)
        return True

    def _fill_in(self, place: str) -> bool:
        """Give a missing setting of a class a value, whose errors are not reported; return False if it is none.

        An item of a list cannot be changed by an option; it is left out.
        """
        kind, item = required_type(place, given_settings(self.rest)), place.rpartition(".")[0]
        left = self._without(self.rest, item, None) if kind is not None and "[" in item else None
        if left is not None:
            self.rest = left
            self.shortened.append(item.rpartition("[")[0])
            return True
        example = EXAMPLES.get(kind or "")
        if example is None or place in self.removed:
            return False
        self.rest.append(f"--{place}={example}")
        self.removed.append(place)
        return True

    def _may_be_in_a_file(self, place: str) -> bool:
        """Return whether a setting is not given, and a file that could give it was left out."""
        return FILE in self.removed and not any(below(key, place) for key in given_settings(self.rest))

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
