"""All errors of a command's settings at once: after an error, the rest is checked without the setting at fault."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from fireopd.cli.setting_names import FILE, given_settings
from fireopd.cli.setting_removal import below, without
from fireopd.errors import UserError, raise_together

__all__ = ["ParseError", "report_all"]

STAND_INS = {
    "model.student": "tiny/student",
    "model.teachers": "{math: {class_path: HFTeacher, init_args: {path: tiny/math}}}",
    "data.prompts": "TinyPrompts",
}
"""Values of settings without a default that are missing, or whose value was left out."""
MOST = 20
"""Errors after which the search ends."""


class ParseError(SystemExit):
    """Error of the parser; its message starts with the setting.

    As a `SystemExit` it passes through jsonargparse, which takes other errors for one of several types that do not fit.
    """


Error = ParseError | UserError


def report_all(first: Error, arguments: Sequence[str], check: Callable[[Sequence[str]], Any]) -> NoReturn:
    """Print all errors of arguments and exit with code 2; errors that are all of the type `UserError` are raised.

    The search ends early, and says so, at an error that no given setting explains. What is missing after an unreadable
    file was left out is no error: the file may give it.

    Args:
        first: first error.
        arguments: those of the command.
        check: raises `ParseError` or `UserError` at the first error of arguments.
    """
    found: list[UserError | str] = [*first.each] if isinstance(first, UserError) else [str(first)]
    with suppress(OSError, RecursionError), TemporaryDirectory() as folder:
        if not any(map(_unrepeatable, arguments)):
            search = _Search(arguments, Path(folder))
            found = search.errors(first, check)
            if not search.complete:
                print("fireopd: the search for errors ended early: there may be more.", file=sys.stderr)
    users = [error for error in found if isinstance(error, UserError)]
    if len(users) == len(found):
        raise_together(users)
    for text in dict.fromkeys(map(str, found)):
        print(f"fireopd: {text}", file=sys.stderr)
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
        self.complete = False
        """True if what is left has no error."""
        self.removed: list[str] = []
        """Settings of which no value is left: errors of their defaults and of stand-ins are not the user's."""
        self.shortened: list[str] = []
        """Lists without some of their items."""
        self.without_file = False
        """True if a configuration file was left out."""

    def errors(self, error: Error, check: Callable[[Sequence[str]], Any]) -> list[UserError | str]:
        """Return all errors, the first one included, up to `MOST`."""
        found = list[UserError | str]()
        for _ in range(3 * MOST):
            place, value = _place(str(error))
            if not self._follows(place, error):
                found += self._reported(error)
            if len(found) >= MOST or not (self._leave_out(place, value) or self._stand_in(place)):
                break
            try:
                check(self.rest)
            except (ParseError, UserError) as other:
                error = other
            except (Exception, SystemExit):
                break
            else:
                self.complete = True
                break
        return found[:MOST]

    def _follows(self, place: str, error: Error) -> bool:
        """Return whether an error may follow from what was left out."""
        name, problem = place.rpartition(".")[2], str(error).partition(": ")[2]
        if any(below(place, own) for own in self.removed):
            return True
        if self.without_file and problem.startswith("missing."):
            return True
        if place.startswith("trainer.") and isinstance(error, UserError):  # from the constructor of the trainer
            return any(below(own, place) for own in self.removed)
        siblings = any(own.rpartition(".")[0] == place.rpartition(".")[0] for own in self.shortened)
        return siblings and problem.startswith(f"{name} ")  # from the constructor of a class with fewer items

    def _leave_out(self, place: str, value: str | None) -> bool:
        """Remove a value of a setting, or all, or the class that has the setting; return False if none is given."""
        if place.removeprefix("--") == FILE:
            left = self._without(self.rest, FILE, value)
            self.rest, self.without_file = self.rest if left is None else left, True
            return left is not None
        given = given_settings(self.rest)
        left = self._without(self.rest, place, value) if value is not None else None
        if left is None:
            left = self._without(self.rest, place, None)
        elif isinstance(given.get(place), list) or any(key.startswith(f"{place}[") for key in given):
            self.shortened.append(place)
        elif value in (str(given.get(place)), str(given.get(f"{place}.class_path"))):
            others = [key for key in given_settings(left) if key.startswith(f"{place}.")]
            if others:  # settings of the class at fault, given on their own
                left = self._without(left, place, None) or left
        if left is None:
            return self._leave_out_class(place.rpartition(".")[0], given)
        self.rest = left
        if place.endswith("]"):
            self.shortened.append(place.rpartition("[")[0])
        elif not any(below(key, place) for key in given_settings(self.rest)):
            self.removed.append(place)
        return True

    def _leave_out_class(self, place: str, given: Mapping[str, Any]) -> bool:
        """Remove a class, for example one that misses a setting; return False if none is given there."""
        name = given.get(f"{place}.class_path", given.get(place))
        owner, bracket, _ = place.rpartition("[")
        if not isinstance(name, str):
            return False
        left = self._without(self.rest, owner, name) if bracket else self._without(self.rest, place, None)
        if left is None:
            return False
        for key in given_settings(left) if bracket else ():
            if key.startswith(f"{owner}."):  # a setting of the last item, given on its own
                left = self._without(left, key, None) or left
        self.rest = left
        (self.shortened if bracket else self.removed).append(owner if bracket else place)
        return True

    def _stand_in(self, place: str) -> bool:
        """Give a missing setting a value; return False for settings that need none, or have one."""
        option = f"--{place}={STAND_INS.get(place)}"
        if place not in STAND_INS or option in self.rest:
            return False
        self.rest.append(option)
        self.removed.append(place)
        return True

    def _without(self, arguments: Sequence[str], place: str, value: str | None) -> list[str] | None:
        self.copies += 1
        return without(arguments, place, self.folder / str(self.copies), value)

    def _reported(self, error: Error) -> list[UserError | str]:
        """Return the single errors, without the number of an item where items before it were left out."""
        if isinstance(error, UserError):
            return [UserError(self._unnumbered(own.key), own.value, own.problem, own.remedy) for own in error.each]
        return [self._unnumbered(line) for line in str(error).splitlines()]

    def _unnumbered(self, text: str) -> str:
        for place in self.shortened:
            text = re.sub(rf"^{re.escape(place)}\[\d+\]", f"{place}[...]", text)
        return text


def _place(text: str) -> tuple[str, str | None]:
    """Return the setting that a message starts with, and the value that follows it."""
    place, _, problem = text.partition(": ")
    value = re.match(r"""(["'])(.+?)\1: """, problem)
    return place.removeprefix("argument ").removeprefix("--"), value and value[2]
