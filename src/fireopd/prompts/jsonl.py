"""Prompts from JSONL files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.errors import MissingResourceError, UserError
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
        # An invalid byte becomes an unpaired surrogate, so that the error can name its line.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            rows = list(_rows(lines, str(path), key))
    except OSError as error:
        kind = MissingResourceError if isinstance(error, FileNotFoundError) else UserError
        raise kind(key, str(path), f"cannot be read ({error})", "give the path of a JSONL file") from error
    return Table(key, str(path), list(dict.fromkeys(name for _, row in rows for name in row)), rows)


def _rows(lines: Iterator[str], name: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    remedy = "write one JSON object per line"
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        problem, row = _parse(line)
        if problem is not None:
            raise UserError(key, place, problem, remedy)
        yield place, row


def _parse(line: str) -> tuple[str | None, Any]:
    """Return the reason why a line is not a JSON object, or None, and the object."""
    try:
        line.encode()
        row = json.loads(line)
        if isinstance(row, dict):
            "".join(row).encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) - 0xDC00
        if error.object is line:
            return f"not UTF-8 (byte 0x{byte:02x} at column {error.start + 1})", None
        return f"a name contains an unpaired surrogate ({error.object[error.start]!a})", None
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg.removesuffix(' at')} at column {error.colno})", None
    except RecursionError:
        return "nested too deeply", None
    except ValueError:
        return "a number has too many digits", None
    return (None, row) if isinstance(row, dict) else ("not an object", None)
