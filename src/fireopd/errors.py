"""User errors: reported without a traceback, with exit code 2."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = [
    "NOTE",
    "CombinedUserError",
    "MissingResourceError",
    "UserError",
    "collect_errors",
    "distinct",
    "import_extra",
    "named_in_traceback",
    "raise_together",
]

NOTE = "fireopd: "
"""Start of the line that a traceback ends with."""


class UserError(ValueError):
    """Error of a setting: its key, its value, the problem and the remedy.

    Example: `UserError("data.prompts.train", "gsm.jsonl", "no such file", "give the path of a JSONL file")`.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        """Store the parts of the message; the remedy starts with an imperative verb."""
        self.key, self.value, self.problem, self.remedy = key, value, problem, remedy
        super().__init__(key, value, problem, remedy)  # all arguments, so that the error can be pickled

    def __str__(self) -> str:
        """Return the message."""
        return f"{self.key}: {self.value!r}: {self.problem}. {self.remedy[0].upper()}{self.remedy[1:]}."

    @property
    def each(self) -> "tuple[UserError, ...]":
        """The single errors that are reported."""
        return (self,)


class MissingResourceError(UserError):
    """Error of a package or a file that this machine lacks; `fireopd check --gpus` plans without it."""


class CombinedUserError(UserError):
    """Several errors of settings, one a line. Key, value, problem and remedy are those of the first."""

    def __init__(self, *errors: UserError) -> None:
        """Store the errors, at least one."""
        first = errors[0]
        super().__init__(first.key, first.value, first.problem, first.remedy)
        self.args = errors  # so that the error can be pickled

    def __str__(self) -> str:
        """Return the messages, one a line."""
        return "\n".join(map(str, self.args))

    @property
    def each(self) -> tuple[UserError, ...]:
        """The single errors."""
        return self.args


def distinct(errors: Iterable[UserError]) -> list[UserError]:
    """Return the single errors, the first of those with equal messages."""
    found: dict[str, UserError] = {}
    for error in errors:
        for single in error.each:
            found.setdefault(str(single), single)
    return list(found.values())


def raise_together(errors: Iterable[UserError]) -> None:
    """Raise all errors as one; errors with equal messages once.

    Raises:
        UserError: if there is an error: itself if it is the only one, otherwise `CombinedUserError`.
    """
    unique = distinct(errors)
    if unique:
        raise unique[0] if len(unique) == 1 else CombinedUserError(*unique)


@contextmanager
def collect_errors(errors: list[UserError]) -> Iterator[None]:
    """Context that appends a `UserError` of its body to a list instead of raising it."""
    try:
        yield
    except UserError as error:
        errors.extend(error.each)


@contextmanager
def named_in_traceback(key: str, plugin: object, action: str) -> Iterator[None]:
    """Context that adds setting, class and action of a plug-in to the traceback of an error in its code.

    The innermost context names the plug-in: an engine calls teachers while it samples.

    Args:
        key: setting that holds the plug-in.
        plugin: the plug-in.
        action: what it does in the context, such as "grades 3 responses".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not any(note.startswith(NOTE) for note in getattr(error, "__notes__", [])):
            error.add_note(f"{NOTE}{key}: {type(plugin).__name__} {action}.")
        raise


def import_extra(module: str, extra: str, key: str, value: str) -> Any:
    """Return a module of an optional dependency.

    Args:
        module: name of the module.
        extra: extra of fireopd that installs it.
        key: setting that needs it, for the error.
        value: value of the setting.

    Raises:
        UserError: if the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"needs {module.partition('.')[0]}, which is not installed ({error.name} is missing)"
        remedy = f"install it: pip install 'fireopd[{extra}]'"
        raise MissingResourceError(key, value, problem, remedy) from error
