"""Prompts from JSONL files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.errors import UserError
from fireopd.prompts.tabular import FilePrompts, Table

__all__ = ["JSONLPrompts", "read_jsonl"]


@dataclass(frozen=True)
class JSONLPrompts(FilePrompts):
    """Prompts from JSONL files with one object per line.

    `{"problem": text, "answer": ...}` is sent as a user message via the chat template;
    `{"prompt": text or chat messages, "answer": ...}` is used unchanged. A row may have a "teacher" and a "task".
    """

    def open(self, path: Path, key: str) -> Table:
        """Read a JSONL file."""
        return read_jsonl(path, key)


def read_jsonl(path: Path, key: str) -> Table:
    """Return the objects of a JSONL file.

    Raises:
        UserError: for the setting `key`, if the file cannot be read or a line is not a JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            rows = list(_rows(lines, str(path), key))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(key, str(path), f"cannot be read ({error})", "give the path of a JSONL file") from error
    return Table(key, str(path), list(dict.fromkeys(name for _, row in rows for name in row)), rows)


def _rows(lines: Iterator[str], name: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    remedy = "write one JSON object per line"
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(key, place, f"not JSON ({error.msg} at column {error.colno})", remedy) from error
        if not isinstance(row, dict):
            raise UserError(key, place, "not an object", remedy)
        yield place, row
