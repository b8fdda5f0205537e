"""User errors: messages without a traceback, exit code 2."""

from importlib import import_module
from typing import Any


class UserError(ValueError):
    """Says which setting is wrong, what it holds and what to do about it.

    Example: `UserError("data.prompts.train", "gsm.jsonl", "no such file", "give the path of a JSONL file")`.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        """Say what is wrong; the remedy starts with a verb in the imperative."""
        self.key, self.value, self.problem, self.remedy = key, value, problem, remedy
        super().__init__(key, value, problem, remedy)  # what it is made of, so that it can go from process to process

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.key}: {self.value!r}: {self.problem}. {self.remedy[0].upper()}{self.remedy[1:]}."


def import_extra(module: str, extra: str, key: str, value: str) -> Any:
    """Return a module.

    Raises:
        UserError: that names the setting and the extra, if the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"needs {module.partition('.')[0]}, which is not installed ({error.name} is missing)"
        raise UserError(key, value, problem, f"install it: pip install 'fireopd[{extra}]'") from error
