"""Base classes of prompt sources that read tables."""

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

__all__ = ["FilePrompts", "Table", "TablePrompts", "checksum"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a table, with names for error messages."""

    key: str
    """Setting of the table, for example `data.prompts.train`."""
    name: str
    """Name of the table, for example `train.jsonl`."""
    columns: list[str]
    """Names of all columns."""
    rows: Iterable[tuple[str, Any]]
    """Location of each row, for example `train.jsonl:12`, and its values by column."""

    @property
    def settings(self) -> str:
        """Settings of the prompt source, for example `data.prompts`."""
        return self.key.rpartition(".")[0]

    def check(self, columns: Columns) -> None:
        """Check that a table with rows has the required columns and one for the content of the prompt.

        Raises:
            UserError: if a column is missing.
        """
        if not self.columns:
            return
        known = f"the columns are {', '.join(self.columns)}"
        for name, path in columns.required_paths.items():
            if not columns.top_level(path) & set(self.columns):
                close = get_close_matches(path, self.columns, n=1)
                setting = name.partition(".")[0]
                remedy = f"set {self.settings}.columns.{setting} to {close[0] if close else 'one of these'}"
                raise UserError(self.key, self.name, f"no column {path}; {known}", remedy)
        if not any(columns.top_level(path) & set(self.columns) for path in columns.content_paths):
            problem = f"no column {' and no column '.join(columns.content_paths)}; {known}"
            remedy = f"set {self.settings}.columns.question to one of these"
            raise UserError(self.key, self.name, problem, remedy)


@dataclass(frozen=True, kw_only=True)
class TablePrompts(PromptSource):
    """Prompts from a training table and a validation table."""

    teacher: str | None = None
    """Teacher of rows without a teacher column."""
    task: str = "prompts"
    """Task of rows without a task column."""
    verifier: Verifier = field(default_factory=FinalAnswer)
    """Grades the responses."""
    columns: Columns = field(default_factory=Columns)
    """Column of each part of a prompt."""
    held_out: int = 0
    """Number of prompts of the training table that are held out for validation, if there is no validation table. They
    are chosen by a checksum of the prompt, independent of the seed and of the order of the rows."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.held_out < 0:
            raise ValueError(f"held_out must be at least 0, got {self.held_out}")

    @abstractmethod
    def training_table(self) -> Table:
        """Return the table of the training prompts.

        Raises:
            UserError: if it cannot be read.
        """

    @abstractmethod
    def validation_table(self) -> Table | None:
        """Return the table of the validation prompts, or None.

        Raises:
            UserError: as in `training_table`.
        """

    def training(self, seed: int) -> list[PromptText]:
        """Return the prompts of the training table that are not held out. The seed is not used."""
        texts = self._read(self.training_table())
        held_out = {checksum(text) for text in self._held_out(texts)}
        return [text for text in texts if checksum(text) not in held_out] if held_out else texts

    def validation(self) -> list[PromptText]:
        """Return the prompts of the validation table, or the held-out prompts of the training table."""
        table = self.validation_table()
        if table is not None and self.held_out:
            remedy = "set one of the two"
            raise UserError(
                table.key, table.name, f"there is a validation table, and held_out is {self.held_out}", remedy
            )
        if table is not None:
            return self._read(table)
        return self._held_out(self._read(self.training_table())) if self.held_out else []

    def _held_out(self, texts: list[PromptText]) -> list[PromptText]:
        if self.held_out and self.held_out >= len(texts):
            problem = f"the training table has {len(texts)} prompts, so none would be left for training"
            raise UserError("data.prompts.held_out", self.held_out, problem, "lower it, or give more prompts")
        return sorted(texts, key=checksum)[: self.held_out]

    def _read(self, table: Table) -> list[PromptText]:
        table.check(self.columns)
        texts, found = [], set[str]()
        for place, values in table.rows:
            row = Row(table.key, place, self.columns, self.columns.read(values))
            texts.append(self._text(row, table.name))
            found |= row.values.keys()
        for name, path in self.columns.required_paths.items():
            if texts and name not in found:
                setting = name.partition(".")[0]
                remedy = f"fix {table.settings}.columns.{setting}, or set it to {'[]' if setting != name else repr('')}"
                raise UserError(table.key, table.name, f"the column {path} is empty in all rows", remedy)
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
            solution=row.text("solution"),
        )


@dataclass(frozen=True)
class FilePrompts(TablePrompts):
    """Prompts from a training file and a validation file."""

    train: Path
    """File of the training prompts."""
    val: Path | None = None
    """File of the validation prompts; null for no validation."""

    @abstractmethod
    def open(self, path: Path, key: str) -> Table:
        """Return the table of a file.

        Raises:
            UserError: for the setting `key`, if the file cannot be read.
        """

    def training_table(self) -> Table:
        """Open the training file."""
        return self.open(self.train, "data.prompts.train")

    def validation_table(self) -> Table | None:
        """Open the validation file."""
        return None if self.val is None else self.open(self.val, "data.prompts.val")


def checksum(text: PromptText) -> int:
    """Return a 32-bit checksum of the content of a prompt, the same on every machine."""
    return zlib.crc32(str(text.content).encode())
