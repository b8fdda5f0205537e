"""Prompts that stand in the rows of a table, whatever file or library the table comes from."""

import zlib
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fireopd.errors import UserError
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.prompts.columns import Columns
from fireopd.prompts.rows import Row
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

    @property
    def settings(self) -> str:
        """The settings that the table belongs to, for example `data.prompts`."""
        return self.key.rpartition(".")[0]

    def check(self, columns: Columns) -> None:
        """Raise `UserError` if there are rows, and a column that must be there is not, or none that asks anything."""
        if not self.columns:
            return
        known = f"there are the columns {', '.join(self.columns)}"
        for name, path in columns.must_be_there.items():
            if not columns.tops(path) & set(self.columns):
                close = get_close_matches(path, self.columns, n=1)
                remedy = f"set {self.settings}.columns.{name} to {close[0] if close else 'one of those'}"
                raise UserError(self.key, self.name, f"no column {path}; {known}", remedy)
        if not any(columns.tops(path) & set(self.columns) for path in columns.asked):
            problem = f"no column {' and no column '.join(columns.asked)}; {known}"
            remedy = f"set {self.settings}.columns.question to one of those"
            raise UserError(self.key, self.name, problem, remedy)


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
        table.check(self.columns)
        texts, found = [], set[str]()
        for place, values in table.rows:
            row = Row(table.key, place, self.columns, self.columns.read(values))
            texts.append(self._text(row, table.name))
            found |= row.values.keys()
        for name, path in self.columns.must_be_there.items():
            if texts and name not in found:
                remedy = f"mend {table.settings}.columns.{name}, or set it to ''"
                raise UserError(table.key, table.name, f"no row holds anything at {path}", remedy)
        return texts

    def _text(self, row: Row, table: str) -> PromptText:
        own = row.text("id")
        return PromptText(
            content=row.content(),
            teacher=row.teacher(self.teacher),
            task=row.text("task") or self.task,
            answer=row.text("answer"),
            id=row.place if own is None else f"{table}:{own}",
            details=row.details(),
        )


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
