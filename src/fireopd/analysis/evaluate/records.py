"""Records of problems and responses: a JSONL file for each model and benchmark."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fireopd.atomic_files import appending, writing
from fireopd.errors import UserError

__all__ = ["ProblemRecord", "ResponseRecord", "append_records", "read_records"]


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """Record of a response."""

    text: str
    """Decoded text without special tokens."""
    tokens: int
    """Number of tokens, including the end-of-sequence token."""
    finished: bool
    """False if the response was truncated at the length limit."""
    reward: float | None
    """Reward in [0, 1]; None without a reference answer."""
    final_answer: str | None
    """Extracted final answer, used for majority votes; None if there is none."""
    seed: int
    """Seed of the sampling."""


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """Record of a problem and all responses to it."""

    id: str
    """`<benchmark>:<id of the problem>`, for example `math500:17`."""
    problem: str | list[dict[str, str]]
    """Text or chat messages, before the chat template."""
    answer: str | None
    """Reference answer, if any."""
    responses: tuple[ResponseRecord, ...]
    """Responses ordered by index."""

    @classmethod
    def read(cls, line: str) -> "ProblemRecord":
        """Parse a line of JSON."""
        row: dict[str, Any] = json.loads(line)
        return cls(**row | {"responses": tuple(ResponseRecord(**response) for response in row["responses"])})

    @property
    def line(self) -> str:
        """The record as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_records(path: Path) -> dict[str, ProblemRecord]:
    """Return the records of a file by id; an incomplete last line is removed from the file.

    Raises:
        UserError: if a line is not a record.
    """
    if not path.exists():
        return {}
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        os.truncate(path, end)
    records = {}
    for number, line in enumerate(whole[:end].decode().split("\n")[:-1], start=1):
        try:
            record = ProblemRecord.read(line)
        except (ValueError, TypeError, KeyError) as error:
            remedy = "delete the file to sample its responses again"
            raise UserError("--out", f"{path}:{number}", f"not a record of a problem ({error})", remedy) from error
        records[record.id] = record
    return records


def append_records(path: Path, records: Iterable[ProblemRecord]) -> None:
    """Append records to a file and flush them to disk.

    Raises:
        UserError: if they cannot be written; the records before them stay.
    """
    with writing("--out", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with appending(path) as file:
            file.write("".join(record.line for record in records).encode())
            file.flush()
            os.fsync(file.fileno())
