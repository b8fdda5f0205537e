"""Tables with output to the terminal, Markdown and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import rich.table

__all__ = ["SHOWN", "Cell", "Estimate", "Table"]

SHOWN = 40
"""Maximum number of rows on the terminal."""


@dataclass(frozen=True)
class Estimate:
    """Mean with standard error."""

    value: float
    """Mean."""
    error: float | None
    """Standard error; None for a single value."""


Cell = str | float | Estimate | None
"""Cell of a table; None for a missing value."""


@dataclass(frozen=True)
class Table:
    """Table with named columns; columns with numbers are right-aligned."""

    title: str
    """Title."""
    columns: Sequence[str]
    """Names of the columns."""
    rows: Sequence[Sequence[Cell]]
    """Rows of cells."""
    note: str = ""
    """Note with an explanation of the columns."""

    def to_rich(self) -> rich.table.Table:
        """Return the table for the terminal, limited to `SHOWN` rows."""
        more = f"{len(self.rows) - SHOWN} more rows in the output files. " if len(self.rows) > SHOWN else ""
        table = rich.table.Table(title=self.title, caption=more + self.note or None, title_justify="left")
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if self._is_number(place) else "left", overflow="fold")
        for row in self.rows[:SHOWN]:
            table.add_row(*(_shown(cell) for cell in row))
        return table

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        rule = ["---:" if self._is_number(place) else "---" for place in range(len(self.columns))]
        rows = [self.columns, rule, *([_shown(cell).replace("|", "\\|") for cell in row] for row in self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([f"## {self.title}", "", *([self.note, ""] if self.note else []), *lines]) + "\n"

    def to_html(self) -> str:
        """Return the table as HTML; columns are sorted by the attribute `data-value`."""
        numbers = [' class="number"' if self._is_number(place) else "" for place in range(len(self.columns))]
        head = "".join(f"<th{n}>{escape(c)}</th>" for c, n in zip(self.columns, numbers, strict=True))
        body = "\n".join(f"<tr>{''.join(map(_html_cell, row, numbers))}</tr>" for row in self.rows)
        note = f"<p>{escape(self.note)}</p>\n" if self.note else ""
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        return f'<h2>{escape(self.title)}</h2>\n{note}<div class="wide">{table}</div>'

    def _is_number(self, place: int) -> bool:
        return any(isinstance(row[place], float | int | Estimate) for row in self.rows)


def _shown(cell: Cell) -> str:
    """Return a cell as text; larger numbers have fewer decimal places, and an error has those of its mean."""
    if cell is None:
        return "-"
    if isinstance(cell, str | int):
        return str(cell)
    if isinstance(cell, Estimate):
        places = _places(cell.value)
        return f"{cell.value:.{places}f}" + ("" if cell.error is None else f" ± {cell.error:.{places}f}")
    return f"{cell:.{_places(cell)}f}"


def _places(value: float) -> int:
    return 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0


def _html_cell(cell: Cell, kind: str) -> str:
    number = cell.value if isinstance(cell, Estimate) else cell
    value = f' data-value="{number}"' if isinstance(number, float | int) else ""
    return f"<td{kind}{value}>{escape(_shown(cell))}</td>"
