"""Prompts in the layout of verl, used by published data such as that of G-OPD."""

from dataclasses import dataclass, field
from pathlib import Path

from fireopd.prompts.columns import Columns
from fireopd.prompts.jsonl import read_jsonl
from fireopd.prompts.parquet import read_parquet
from fireopd.prompts.tabular import FilePrompts, Table

__all__ = ["VerlColumns", "VerlPrompts"]


@dataclass(frozen=True)
class VerlColumns(Columns):
    """Columns of verl's layout, with the teacher column of G-OPD (arXiv 2602.12125)."""

    question: str = ""
    """Text that is sent as a user message via the chat template; empty for none."""
    prompt: str = "prompt"
    """Chat messages."""
    answer: str = "reward_model.ground_truth"
    """Reference answer: text or an integer; empty for none."""
    teacher: str = "extra_info.opd_teacher"
    """Name of the row's teacher; empty for the same teacher for all rows."""
    task: str = "data_source"
    """Name under which the row is reported; empty for the same name for all rows."""
    details: str = "extra_info"
    """Nested columns for the verifier, available as `prompt.details`; empty for none."""


@dataclass(frozen=True)
class VerlPrompts(FilePrompts):
    """Prompts in verl's layout, from JSONL files (`.jsonl`, `.json`) or Parquet files (any other ending).

    The columns are `prompt` (chat messages), `reward_model.ground_truth`, `data_source` (the task) and optionally
    `extra_info.opd_teacher`, the teacher of the row.
    """

    columns: VerlColumns = field(default_factory=VerlColumns, kw_only=True)
    """Column of each part of a prompt."""

    def open(self, path: Path, key: str) -> Table:
        """Open a file."""
        return read_jsonl(path, key) if path.suffix in (".jsonl", ".json") else read_parquet(path, key, self.columns)
