"""Instantiation of the classes in parsed settings; a value that a constructor rejects is named by its key."""

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from fireopd.cli.class_paths import check_class_paths, command_line_key, find_class_paths, sections
from fireopd.cli.parser import Parser
from fireopd.cli.scheduled_settings import construct
from fireopd.errors import UserError

__all__ = ["instantiate"]

SCALARS = (str, int, float, bool, type(None))
"""Types of values that are the same before and after instantiation."""


class RejectedSettingError(ValueError):
    """`ValueError` from the constructor of a configured class, with the class and its arguments.

    By convention, the message starts with the name of the rejected argument.
    """

    def __init__(self, kind: type, arguments: Mapping[str, Any], error: ValueError) -> None:
        """Store class, arguments and error."""
        super().__init__(str(error))
        self.kind, self.arguments, self.name = kind, arguments, str(error).partition(" ")[0]

    def key(self, settings: Namespace) -> str | None:
        """Return the key of the rejected argument in the settings; None if the message names no argument."""
        keys = (f"{key}.{self.name}".lstrip(".") for key, values in sections(settings) if self._is_built_from(values))
        return next(keys, None) if self.name in self.arguments else None

    def _is_built_from(self, values: Mapping[str, Any]) -> bool:
        if values.get("class_path", self.kind.__name__).rpartition(".")[2] != self.kind.__name__:
            return False
        own = values.get("init_args", values)
        plain = {name: value for name, value in self.arguments.items() if isinstance(value, SCALARS)}
        return all(name in own and own[name] == value for name, value in plain.items()) and self.name in own


def instantiate(parser: Parser, settings: Namespace) -> Namespace:
    """Instantiate all classes in the settings.

    A `ValueError` from a constructor is reported as an error of the command line, with the key of the setting.
    """
    try:
        check_class_paths(settings)
        values = parser.instantiate(settings, instantiators=[(_construct, object, True)])
        for place, path in find_class_paths(values):
            raise UserError(command_line_key(place), path, "class_path in plain data", "leave class_path out")
        return values
    except RejectedSettingError as error:
        key = error.key(settings)
        parser.error(f"{command_line_key(key)}: {error}" if key else str(error), error)
    except ValueError as error:
        parser.error(str(error), error)


def _construct(kind: type, /, *args: Any, **arguments: Any) -> Any:
    try:
        for name, value in arguments.items():
            for _, path in find_class_paths(value):
                raise ValueError(f"{name} must be plain data, got class_path {path!r}; leave class_path out")
        return construct(kind, *args, **arguments)
    except UserError:
        raise
    except ValueError as error:
        raise RejectedSettingError(kind, arguments, error) from error
