"""A table that can be shown on the terminal, written as Markdown, and sorted on a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import rich.table

SHOWN = 40
"""Rows of a table that go on the terminal."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error."""

    value: float
    """The mean."""
    error: float | None
    """Standard error; none where there is one value only."""


Cell = str | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Columns with a name, rows of cells; the first columns are words, numbers stand on the right."""

    title: str
    """What it shows."""
    columns: Sequence[str]
    """Names of the columns."""
    rows: Sequence[Sequence[Cell]]
    """Words, numbers, or None where there is nothing to say."""
    note: str = ""
    """How to read it."""

    def to_rich(self) -> rich.table.Table:
        """Return it for the terminal."""
        more = f"{len(self.rows) - SHOWN} more rows are in the files. " if len(self.rows) > SHOWN else ""
        table = rich.table.Table(title=self.title, caption=more + self.note or None, title_justify="left")
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if self._is_number(place) else "left", overflow="fold")
        for row in self.rows[:SHOWN]:
            table.add_row(*(shown(cell) for cell in row))
        return table

    def to_markdown(self) -> str:
        """Return it as Markdown."""
        rule = ["---:" if self._is_number(place) else "---" for place in range(len(self.columns))]
        rows = [self.columns, rule, *([shown(cell).replace("|", "\\|") for cell in row] for row in self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([f"## {self.title}", "", *([self.note, ""] if self.note else []), *lines]) + "\n"

    def to_html(self) -> str:
        """Return it as HTML; `data-value` is what a column is sorted by."""
        numbers = [' class="number"' if self._is_number(place) else "" for place in range(len(self.columns))]
        head = "".join(f"<th{n}>{escape(c)}</th>" for c, n in zip(self.columns, numbers, strict=True))
        body = "\n".join(f"<tr>{''.join(map(_html_cell, row, numbers))}</tr>" for row in self.rows)
        note = f"<p>{escape(self.note)}</p>\n" if self.note else ""
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        return f'<h2>{escape(self.title)}</h2>\n{note}<div class="wide">{table}</div>'

    def _is_number(self, place: int) -> bool:
        return any(isinstance(row[place], float | int | Estimate) for row in self.rows)


def shown(cell: Cell) -> str:
    """Return a cell as it is read: the larger a number, the fewer digits behind the point; an error has its mean's."""
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
    return f"<td{kind}{value}>{escape(shown(cell))}</td>"
