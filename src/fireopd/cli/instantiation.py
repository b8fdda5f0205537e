"""Instantiation of the classes in parsed settings; a value that a constructor rejects is named by its key."""

from collections.abc import Mapping
from typing import Any, NoReturn

from jsonargparse import Namespace

from fireopd.cli.class_paths import check_class_paths, command_line_key, find_class_paths, sections
from fireopd.cli.parser import Parser
from fireopd.cli.scheduled_settings import construct
from fireopd.errors import NOTE, UserError

__all__ = ["instantiate"]

UNKNOWN = "class_path"
"""Place of a class that no setting names, such as the module."""
SCALARS = (str, int, float, bool, type(None))
"""Types of values that are the same before and after instantiation."""


class RejectedSettingError(SystemExit):
    """Error from the constructor of a configured class, with the class and its arguments.

    By convention, the message of a `ValueError` starts with the name of the rejected argument. As a `SystemExit` it
    passes through jsonargparse, which takes other errors for one of several types that do not fit.
    """

    def __init__(self, kind: type, arguments: Mapping[str, Any], error: Exception) -> None:
        """Store class, arguments and error."""
        super().__init__(str(error))
        self.kind, self.arguments, self.error = kind, arguments, error
        self.name = str(error).partition(" ")[0]

    def key(self, settings: Namespace) -> str | None:
        """Return the key of the rejected argument in the settings; None if the message names no argument."""
        keys = (f"{key}.{self.name}".lstrip(".") for key, values in sections(settings) if self._is_built_from(values))
        return next(keys, None) if self.name in self.arguments else None

    def place(self, settings: Namespace) -> str:
        """Return the key of the class in the settings."""
        found = (command_line_key(key) for key, values in sections(settings) if self._is_class_of(values))
        return next(found, UNKNOWN)

    def _is_class_of(self, values: Mapping[str, Any]) -> bool:
        return str(values.get("class_path", "")).rpartition(".")[2] == self.kind.__name__

    def _is_built_from(self, values: Mapping[str, Any]) -> bool:
        if "class_path" in values and not self._is_class_of(values):
            return False
        own = values.get("init_args", values)
        plain = {name: value for name, value in self.arguments.items() if isinstance(value, SCALARS)}
        return all(name in own and own[name] == value for name, value in plain.items()) and self.name in own


def instantiate(parser: Parser, settings: Namespace) -> Namespace:
    """Instantiate all classes in the settings.

    A `ValueError` from a constructor is reported as an error of the command line, with the key of the setting.

    Raises:
        UserError: from a constructor, if it needs a package that is not installed, or for an error of Lightning.
    """
    construction = _Construction()
    try:
        check_class_paths(settings)
        values = parser.instantiate(settings, instantiators=[(construction, object, True)])
        for place, path in find_class_paths(values):
            raise UserError(command_line_key(place), path, "class_path in plain data", "leave class_path out")
        return values
    except RejectedSettingError as rejected:
        _report(parser, settings, rejected)
    except ValueError as error:
        parser.error(str(error), error)
    finally:
        construction.ended = True


def _report(parser: Parser, settings: Namespace, rejected: RejectedSettingError) -> NoReturn:
    """Report the error of a constructor: of a setting, of a missing package, or of the code of a plug-in."""
    error, name, place = rejected.error, rejected.kind.__name__, rejected.place(settings)
    reason = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, UserError):
        raise error from None
    if isinstance(error, ModuleNotFoundError):
        raise UserError(place, name, f"needs a package: {reason}", "install the package") from error
    if isinstance(error, ValueError):
        key = rejected.key(settings)
        owner = "" if place == UNKNOWN else f"{place}: {name!r}: "
        parser.error(f"{command_line_key(key)}: {error}" if key else f"{owner}{error}", error)
    if rejected.kind.__module__.startswith("lightning."):
        raise UserError(place, name, reason, "fix its settings") from error
    error.add_note(f"{NOTE}{place}: {name} is constructed.")
    raise error from error.__cause__  # without the error that carried it


class _Construction:
    """Construction of the classes in settings; optimizers and schedulers are constructed after it has ended."""

    ended = False

    def __call__(self, kind: type, /, *args: Any, **arguments: Any) -> Any:
        """Return an instance of a class."""
        try:
            for name, value in arguments.items():
                for _, path in find_class_paths(value):
                    raise ValueError(f"{name} must be plain data, got class_path {path!r}; leave class_path out")
            return construct(kind, *args, **arguments)
        except Exception as error:
            if self.ended:
                raise
            raise RejectedSettingError(kind, arguments, error) from error
