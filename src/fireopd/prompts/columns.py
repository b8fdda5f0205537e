"""Which column of a table holds what."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Columns:
    """Names of columns. A dotted path goes into nested ones: `extra_info.opd_teacher`.

    Of the usual names a table may lack any; other ones must be there.
    """

    question: str = "problem"
    """Text that becomes a user's message; empty to look for none."""
    prompt: str = "prompt"
    """Text that is taken as it is, or chat messages, where there is no question; empty to look for none."""
    answer: str = "answer"
    """Reference answer: text or a whole number; empty for none."""
    teacher: str = "teacher"
    """Name of the row's teacher; empty for the same teacher for all."""
    task: str = "task"
    """Name under which the row is reported; empty for the same name for all."""
    id: str = ""
    """What tells the row from all others, and seeds its rollouts; empty for its number."""
    details: str = ""
    """Nested columns that a verifier may read as `prompt.details`; empty for none."""

    def __post_init__(self) -> None:
        """Check that there is something to ask."""
        if not self.question and not self.prompt:
            raise ValueError("question and prompt must not both be empty, got '' and ''")

    @property
    def paths(self) -> dict[str, str]:
        """The columns by what they hold."""
        return {name: path for name, path in vars(self).items() if path}

    @property
    def asked(self) -> list[str]:
        """The columns one of which says what is asked."""
        return [path for path in (self.question, self.prompt) if path]

    @property
    def must_be_there(self) -> dict[str, str]:
        """Those of them that are not the usual ones."""
        usual = {f.name: f.default for f in fields(self)}
        return {name: path for name, path in self.paths.items() if path != usual[name]}

    def needed(self, names: list[str]) -> list[str]:
        """Return those of a table's columns that have to be read."""
        tops = set[str]().union(*(self.tops(path) for path in self.paths.values()))
        return [name for name in names if name in tops]

    @staticmethod
    def tops(path: str) -> set[str]:
        """Return the names of the columns in which a path may begin."""
        return {path, path.partition(".")[0]}

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a row holds, by what it is; what it lacks is left out, and so is null."""
        found = {name: lookup(row, path) for name, path in self.paths.items()}
        return {name: value for name, value in found.items() if value is not None}


def lookup(row: Any, path: str) -> Any:
    """Return what stands at a dotted path, None if nothing does; a column whose own name has dots comes first."""
    if not isinstance(row, Mapping):
        return None
    if path in row:
        return row[path]
    first, dot, rest = path.partition(".")
    return lookup(row.get(first), rest) if dot else None
