"""One row of a table: what it says of a prompt, and what is wrong with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fireopd.errors import UserError
from fireopd.prompts.columns import Columns


@dataclass(frozen=True, slots=True)
class Row:
    """A row. Each of its methods raises `UserError` where what it returns is not to be had."""

    key: str
    """The setting that names the table, for example `data.prompts.train`."""
    place: str
    """Where the row stands, for example `train.jsonl:12`."""
    columns: Columns
    """Which column holds what."""
    values: Mapping[str, Any]
    """What they hold, by what it is; what is null is not in it."""

    def __post_init__(self) -> None:
        """Check that all text in it can be written, and so read by a tokenizer."""
        for name, value in self.values.items():
            try:
                json.dumps(value, ensure_ascii=False, default=str).encode()
            except UnicodeEncodeError as error:
                problem = f"the {name} holds half of a character ({error.object[error.start]!a}), which is no text"
                raise self.error(problem, "write the whole character, or drop the row") from error

    def content(self) -> str | list[dict[str, str]]:
        """Return what is asked: text, or chat messages."""
        question, prompt = self.values.get("question"), self.values.get("prompt")
        if isinstance(question, str) and question.strip():
            return [{"role": "user", "content": question}]
        if isinstance(prompt, str) and prompt.strip():
            return prompt
        messages = [_message(message) for message in prompt] if isinstance(prompt, list) else []
        if messages and all(messages):
            return [message for message in messages if message is not None]
        if question is None and prompt is None:
            raise self.error(f"the row has no {' and no '.join(self.columns.asked)}", "write one, or drop the row")
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
        """Return a value as text; a float is refused, since 72 and 72.0 are two texts, and so is what has parts."""
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise self.error(f"the {name} is {value!r}, neither text nor a whole number", "write it as text")

    def details(self) -> Mapping[str, Any]:
        """Return the nested columns that verifiers may read."""
        value = self.values.get("details", {})
        if isinstance(value, Mapping):
            return value
        problem = f"what is at {self.columns.details} has no columns of its own"
        raise self.error(problem, f"name a column with nested ones in {self.key.rpartition('.')[0]}.columns.details")

    def error(self, problem: str, remedy: str) -> UserError:
        """Return what to raise about the row."""
        return UserError(self.key, self.place, problem, remedy)


def _message(message: Any) -> dict[str, str] | None:
    """Return a chat message without the empty columns that a table gives it, None if it is none."""
    if not isinstance(message, Mapping):
        return None
    filled = {name: value for name, value in message.items() if value is not None}
    is_text = isinstance(filled.get("role"), str) and isinstance(filled.get("content"), str)
    return filled if is_text and filled["content"].strip() else None
