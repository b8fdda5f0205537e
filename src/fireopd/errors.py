"""User errors: reported without a traceback, with exit code 2."""

from importlib import import_module
from typing import Any

__all__ = ["UserError", "import_extra"]


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
        raise UserError(key, value, problem, f"install it: pip install 'fireopd[{extra}]'") from error
