"""Row of a table, validated and converted to the parts of a prompt."""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fireopd.errors import UserError
from fireopd.prompts.columns import Columns

__all__ = ["Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row. Its methods raise `UserError` if a value is missing or invalid."""

    key: str
    """Setting of the table, for example `data.prompts.train`."""
    place: str
    """Location of the row, for example `train.jsonl:12`."""
    columns: Columns
    """Column of each part of a prompt."""
    values: Mapping[str, Any]
    """Values by part of the prompt, without null values."""

    def __post_init__(self) -> None:
        """Check that all text is valid Unicode, which tokenizers require."""
        for name, value in self.values.items():
            try:
                json.dumps(value, ensure_ascii=False, default=str).encode()
            except UnicodeEncodeError as error:
                problem = f"the {name} contains an unpaired surrogate ({error.object[error.start]!a})"
                raise self.error(problem, "write the complete character, or remove the row") from error
            except RecursionError as error:
                raise self.error(f"the {name} is nested too deeply", "write it flat, or remove the row") from error

    def content(self) -> str | list[dict[str, str]]:
        """Return the content of the prompt: text, or chat messages."""
        question, prompt = self.values.get("question"), self.values.get("prompt")
        if isinstance(question, str) and question.strip():
            return [{"role": "user", "content": question}]
        if isinstance(prompt, str) and prompt.strip():
            return prompt
        messages = [_message(message) for message in prompt] if isinstance(prompt, list) else []
        if messages and all(messages):
            return [message for message in messages if message is not None]
        if question is None and prompt is None:
            raise self.error(
                f"the row has no {' and no '.join(self.columns.content_paths)}", "add one, or remove the row"
            )
        remedy = 'write text, or [{"role": "user", "content": text}]'
        raise self.error("the prompt is empty, or neither text nor chat messages", remedy)

    def teacher(self, default: str | None) -> str:
        """Return the name of the row's teacher."""
        name = self.values.get("teacher", default)
        if isinstance(name, str) and name:
            return name
        remedy = f'add "{self.columns.teacher or "teacher"}" to the row, or set {self.key.rpartition(".")[0]}.teacher'
        raise self.error("the row names no teacher", remedy)

    def text(self, name: str) -> str | None:
        """Return a string or integer as text. Floats are rejected, since the text of 72.0 differs from that of 72."""
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise self.error(f"the {name} is {reprlib.repr(value)}, neither text nor an integer", "write it as text")

    def details(self) -> Mapping[str, Any]:
        """Return the nested columns for verifier and contexts, and the extra columns by their paths."""
        value = self.values.get("details", {})
        if isinstance(value, Mapping):
            found = {path: self.values.get(f"extra.{path}") for path in self.columns.extra}
            return {**value, **{path: own for path, own in found.items() if own is not None}} if found else value
        problem = f"the column {self.columns.details} has no nested columns"
        raise self.error(problem, f"set {self.key.rpartition('.')[0]}.columns.details to a column with nested ones")

    def error(self, problem: str, remedy: str) -> UserError:
        """Return an error about the row."""
        return UserError(self.key, self.place, problem, remedy)


def _message(message: Any) -> dict[str, str] | None:
    """Return a chat message without null values, or None if it is invalid.

    Tables have the same columns in all messages, so unused columns are null.
    """
    if not isinstance(message, Mapping):
        return None
    filled = {name: value for name, value in message.items() if value is not None}
    is_text = isinstance(filled.get("role"), str) and isinstance(filled.get("content"), str)
    return filled if is_text and filled["content"].strip() else None
