"""What is kept of every problem: a line of JSON in a file for each model and benchmark."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fireopd.errors import UserError


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """One response."""

    text: str
    """What the model wrote, special tokens left out."""
    tokens: int
    """How many it is made of, the end-of-sequence token included."""
    finished: bool
    """False if it was cut at the length limit."""
    reward: float | None
    """Its grade in [0, 1]; none where there is no reference answer."""
    final_answer: str | None
    """What it comes to, as it counts in a majority vote; none if it comes to nothing."""
    seed: int
    """What it was sampled with."""


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """One problem and all responses to it."""

    id: str
    """Benchmark, and what the problem is called in it, for example `math500:17`."""
    problem: str | list[dict[str, str]]
    """What the model was asked, before the chat template."""
    answer: str | None
    """Reference answer, if there is one."""
    responses: tuple[ResponseRecord, ...]
    """In the order of their seeds' indices."""

    @classmethod
    def read(cls, line: str) -> "ProblemRecord":
        """Return the record of a line."""
        row: dict[str, Any] = json.loads(line)
        return cls(**row | {"responses": tuple(ResponseRecord(**response) for response in row["responses"])})

    @property
    def line(self) -> str:
        """The record as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_records(path: Path) -> dict[str, ProblemRecord]:
    """Return the records of a file by id; a last line that was not written to its end is taken away.

    Raises:
        UserError: if a line is something else.
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
            remedy = "delete the file, and its responses are sampled anew"
            raise UserError("--out", f"{path}:{number}", f"no record of a problem ({error})", remedy) from error
        records[record.id] = record
    return records


def append_records(path: Path, records: Iterable[ProblemRecord]) -> None:
    """Add lines to a file; they are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write("".join(record.line for record in records).encode())
        file.flush()
        os.fsync(file.fileno())
