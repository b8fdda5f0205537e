"""Prompts that stand in the rows of a table, whatever file or library the table comes from."""

import zlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fireopd.errors import UserError
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.prompts.columns import Columns
from fireopd.verifiers import FinalAnswer, Verifier


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, and what to call them in a message."""

    key: str
    """The setting that names the table, for example `data.prompts.train`."""
    name: str
    """For example `train.jsonl`."""
    columns: list[str]
    """Names of all columns that there are."""
    rows: Iterable[tuple[str, Any]]
    """Where each row stands, for example `train.jsonl:12`, and its columns that were asked for."""

    def complain(self, place: str, problem: str, remedy: str) -> UserError:
        """Return what to raise about a row."""
        return UserError(self.key, place, problem, remedy)


@dataclass(frozen=True, kw_only=True)
class TablePrompts(PromptSource):
    """Prompts from tables, one for training and one for validation."""

    teacher: str | None = None
    """Teacher of the rows that name none."""
    task: str = "prompts"
    """Task of the rows that name none."""
    verifier: Verifier = field(default_factory=FinalAnswer)
    """Grades the responses."""
    columns: Columns = field(default_factory=Columns)
    """Which column holds what."""
    held_out: int = 0
    """Prompts of the training table that are held out for validation, where there is no table for that. A checksum
    of the prompt chooses them, so that they are the same whatever the seed and the order of the rows."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.held_out < 0:
            raise ValueError(f"held_out must be at least 0, got {self.held_out}")

    @abstractmethod
    def training_table(self) -> Table:
        """Open the table of the training prompts.

        Raises:
            UserError: if it cannot be read.
        """

    @abstractmethod
    def validation_table(self) -> Table | None:
        """Open the table of the validation prompts, if there is one.

        Raises:
            UserError: as in `training_table`.
        """

    def training(self, seed: int) -> list[PromptText]:
        """Read the training table, less what is held out; the seed has no part in it."""
        texts = self._read(self.training_table())
        apart = {checksum(text) for text in self._held_out(texts)}
        return [text for text in texts if checksum(text) not in apart] if apart else texts

    def validation(self) -> list[PromptText]:
        """Read the validation table, or what is held out of the training table."""
        table = self.validation_table()
        if table is not None and self.held_out:
            remedy = "give a table for validation, or hold out rows of the training table"
            raise UserError(table.key, table.name, f"held_out is {self.held_out} as well", remedy)
        if table is not None:
            return self._read(table)
        return self._held_out(self._read(self.training_table())) if self.held_out else []

    def _held_out(self, texts: list[PromptText]) -> list[PromptText]:
        return sorted(texts, key=checksum)[: self.held_out]

    def _read(self, table: Table) -> list[PromptText]:
        settings, _, _ = table.key.rpartition(".")
        columns = f"there are the columns {', '.join(table.columns)}" if table.columns else "there are no rows"
        missing = self.columns.must_be_there
        for name, path in missing.items():
            if not {path, path.partition(".")[0]} & set(table.columns) and table.columns:
                close = get_close_matches(path, table.columns, n=1)
                remedy = f"set {settings}.columns.{name} to {close[0] if close else 'one of those'}"
                raise table.complain(table.name, f"no column {path}; {columns}", remedy)
        texts, found = [], set[str]()
        for place, row in table.rows:
            read = self.columns.read(row)
            found |= read.keys()
            texts.append(self._text(read, table, place))
        for name in missing.keys() - found if texts else ():
            problem = f"no row holds anything at {missing[name]}"
            remedy = f"mend {settings}.columns.{name}, or set it to ''"
            raise table.complain(table.name, problem, remedy)
        return texts

    def _text(self, read: Mapping[str, Any], table: Table, place: str) -> PromptText:
        content = self._content(read, table, place)
        teacher = read.get("teacher", self.teacher)
        if not isinstance(teacher, str) or not teacher:
            settings, _, _ = table.key.rpartition(".")
            remedy = f'add "{self.columns.teacher or "teacher"}" to the row, or set {settings}.teacher'
            raise table.complain(place, "the row names no teacher", remedy)
        answer, task, own = (_plain(read.get(name), name, table, place) for name in ("answer", "task", "id"))
        details = read.get("details", {})
        if not isinstance(details, Mapping):
            problem = f"what is at {self.columns.details} has no columns of its own"
            raise table.complain(place, problem, "name a column with nested ones, or none")
        place = place if own is None else f"{table.name}:{own}"
        return PromptText(content, teacher, task or self.task, answer, place, self.verifier, details)

    def _content(self, read: Mapping[str, Any], table: Table, place: str) -> str | list[dict[str, str]]:
        question, prompt = read.get("question"), read.get("prompt")
        if isinstance(question, str) and question.strip():
            return [{"role": "user", "content": question}]
        if isinstance(prompt, str) and prompt.strip():
            return prompt
        messages = [_message(message) for message in prompt] if isinstance(prompt, list) else []
        if messages and all(messages):
            return [message for message in messages if message is not None]
        if question is None and prompt is None:
            paths = [f'"{path}"' for path in (self.columns.question, self.columns.prompt) if path]
            problem = f"the row has no {' and no '.join(paths)}"
            remedy = f"name the column of the question in {table.key.rpartition('.')[0]}.columns"
        else:
            problem = "the prompt is empty, or neither text nor chat messages"
            remedy = 'write text, or [{"role": "user", "content": text}]'
        raise table.complain(place, problem, remedy)


@dataclass(frozen=True)
class FilePrompts(TablePrompts):
    """Prompts from files."""

    train: Path
    """File of the training prompts."""
    val: Path | None = None
    """File of the validation prompts; none to do without validation."""

    @abstractmethod
    def open(self, path: Path, key: str) -> Table:
        """Open a file.

        Raises:
            UserError: that names the setting `key`, if the file cannot be read.
        """

    def training_table(self) -> Table:
        """Open the training file."""
        return self.open(self.train, "data.prompts.train")

    def validation_table(self) -> Table | None:
        """Open the validation file."""
        return None if self.val is None else self.open(self.val, "data.prompts.val")


def checksum(text: PromptText) -> int:
    """Return 32 bits of what is asked, the same on every machine."""
    return zlib.crc32(str(text.content).encode())


def _message(message: Any) -> dict[str, str] | None:
    """Return a chat message without the empty columns that a table gives it, None if it is none."""
    if not isinstance(message, Mapping):
        return None
    filled = {name: value for name, value in message.items() if value is not None}
    is_text = isinstance(filled.get("role"), str) and isinstance(filled.get("content"), str)
    return filled if is_text and filled["content"].strip() else None


def _plain(value: Any, what: str, table: Table, place: str) -> str | None:
    """Return a value as text; a float is refused, since 72 and 72.0 are two texts, and so is what has parts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise table.complain(place, f"the {what} is {value!r}, neither text nor a whole number", "write it as text")
