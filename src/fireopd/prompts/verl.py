"""Prompts in the layout of verl, in which G-OPD and others publish theirs."""

from dataclasses import dataclass, field
from pathlib import Path

from fireopd.prompts.columns import Columns
from fireopd.prompts.jsonl import read_jsonl
from fireopd.prompts.parquet import read_parquet
from fireopd.prompts.tabular import FilePrompts, Table


@dataclass(frozen=True)
class VerlColumns(Columns):
    """The columns of verl's layout; the routing to teachers is G-OPD's (arXiv 2602.12125)."""

    question: str = ""
    """Text that becomes a user's message; empty to look for none."""
    prompt: str = "prompt"
    """Chat messages."""
    answer: str = "reward_model.ground_truth"
    """Reference answer: text or a whole number; empty for none."""
    teacher: str = "extra_info.opd_teacher"
    """Name of the row's teacher; empty for the same teacher for all."""
    task: str = "data_source"
    """Name under which the row is reported; empty for the same name for all."""
    details: str = "extra_info"
    """Nested columns that a verifier may read as `prompt.details`; empty for none."""


@dataclass(frozen=True)
class VerlPrompts(FilePrompts):
    """Prompts in verl's layout, from JSONL files (`.jsonl`, `.json`) or Parquet files (any other ending).

    The columns are `prompt` (chat messages), `reward_model.ground_truth`, `data_source` (the task) and, where rows have
    teachers of their own, `extra_info.opd_teacher`.
    """

    columns: VerlColumns = field(default_factory=VerlColumns, kw_only=True)
    """Which column holds what."""

    def open(self, path: Path, key: str) -> Table:
        """Open a file."""
        return read_jsonl(path, key) if path.suffix in (".jsonl", ".json") else read_parquet(path, key, self.columns)
