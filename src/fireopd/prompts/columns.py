"""Mapping from the columns of a table to the parts of a prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Columns", "lookup"]


@dataclass(frozen=True)
class Columns:
    """Column of each part of a prompt. A dotted path addresses a nested column: `extra_info.opd_teacher`.

    Columns with a default name are optional; columns with another name are required.
    """

    question: str = "problem"
    """Text that is sent as a user message via the chat template; empty for none."""
    prompt: str = "prompt"
    """Text to continue without a chat template, or chat messages, for rows without a question; empty for none."""
    answer: str = "answer"
    """Reference answer: text or an integer; empty for none."""
    teacher: str = "teacher"
    """Name of the row's teacher; empty for the same teacher for all rows."""
    task: str = "task"
    """Name under which the row is reported; empty for the same name for all rows."""
    id: str = ""
    """Unique id of the row, part of the rollout seed; empty for the row number."""
    details: str = ""
    """Nested columns for verifier and contexts of teachers, available as `prompt.details`; empty for none."""
    solution: str = ""
    """Reference solution, for contexts of teachers; empty for none."""
    extra: tuple[str, ...] = ()
    """Further columns, which become details of the prompt under their names."""

    def __post_init__(self) -> None:
        """Check that a question or a prompt has a column."""
        if not self.question and not self.prompt:
            raise ValueError("question and prompt must not both be empty, got '' and ''")

    @property
    def paths(self) -> dict[str, str]:
        """Paths of the configured columns by part of the prompt."""
        named = {name: path for name, path in vars(self).items() if path and name != "extra"}
        return named | {f"extra.{path}": path for path in self.extra}

    @property
    def content_paths(self) -> list[str]:
        """Paths of the columns that may contain the content of the prompt; a table needs one of them."""
        return [path for path in (self.question, self.prompt) if path]

    @property
    def required_paths(self) -> dict[str, str]:
        """Paths that differ from the defaults; a table must have these columns."""
        defaults = {f.name: f.default for f in fields(self)}
        return {name: path for name, path in self.paths.items() if path != defaults.get(name)}

    def select(self, names: list[str]) -> list[str]:
        """Return the columns of a table that have to be read."""
        used = set[str]().union(*(self.top_level(path) for path in self.paths.values()))
        return [name for name in names if name in used]

    @staticmethod
    def top_level(path: str) -> set[str]:
        """Return the names of top-level columns in which a path may start: the whole path, or its first part."""
        return {path, path.partition(".")[0]}

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a row by part of the prompt, without missing and null values."""
        found = {name: lookup(row, path) for name, path in self.paths.items()}
        return {name: value for name, value in found.items() if value is not None}


def lookup(row: Any, path: str) -> Any:
    """Return the value at a dotted path, or None. A column whose name is the whole path takes precedence."""
    if not isinstance(row, Mapping):
        return None
    if path in row:
        return row[path]
    first, dot, rest = path.partition(".")
    return lookup(row.get(first), rest) if dot else None
