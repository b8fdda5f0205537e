"""Tables with output to the terminal, Markdown and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import rich.table
from rich.console import Group, JustifyMethod

__all__ = ["SHOWN", "Cell", "Estimate", "Table"]

SHOWN = 40
"""Maximum number of rows on the terminal."""
LABEL_WIDTH = 24
"""Largest width of a text column on a terminal that is too narrow; longer text is folded."""
BORDER = 3
"""Width of the padding and the border of a column."""
LONG = 48
"""Characters from which a cell of an HTML table is broken into lines."""


@dataclass(frozen=True)
class Estimate:
    """Mean with standard error."""

    value: float
    """Mean."""
    error: float | None
    """Standard error, or half the length of an interval; None for a single value."""
    mark: str = ""
    """Text after the numbers."""


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

    def to_rich(self, width: int) -> Group:
        """Return the table for a terminal of a width in characters, limited to `SHOWN` rows.

        If it does not fit, the columns are divided over several tables. The first text columns are repeated in each,
        and no word of a heading is broken.
        """
        more = f"{len(self.rows) - SHOWN} more rows in the output files. " if len(self.rows) > SHOWN else ""
        parts, widths = self._parts(width)
        tables = [rich.table.Table(title_justify="left") for _ in parts]
        tables[0].title = self.title
        tables[-1].caption = more + self.note or None
        for part, table in zip(parts, tables, strict=True):
            for place in part:
                justify: JustifyMethod = "right" if self._is_number(place) else "left"
                table.add_column(self.columns[place], justify=justify, overflow="fold", width=widths[place])
            for row in self.rows[:SHOWN]:
                table.add_row(*(_shown(row[place]) for place in part))
        return Group(*tables)

    def _parts(self, width: int) -> tuple[list[list[int]], list[int | None]]:
        """Return the columns of each table on the terminal, and the width of each column; None for no limit."""
        places = list(range(len(self.columns)))
        cells = [max((len(_shown(row[place])) for row in self.rows[:SHOWN]), default=0) for place in places]
        natural = sum(max(len(self.columns[place]), cells[place]) + BORDER for place in places) + 1
        if natural <= width:
            return [places], [None] * len(places)
        words = [max(map(len, column.split()), default=0) for column in self.columns]
        limited = [cells[place] if self._is_number(place) else min(cells[place], LABEL_WIDTH) for place in places]
        widths = [max(pair) for pair in zip(words, limited, strict=True)]
        labels = places[: next((place for place in places if self._is_number(place)), 1)]
        parts = [list(labels)]
        for place in places[len(labels) :]:
            if len(parts[-1]) > len(labels) and sum(widths[x] + BORDER for x in [*parts[-1], place]) + 1 > width:
                parts.append(list(labels))
            parts[-1].append(place)
        return parts, list(widths)

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        rule = ["---:" if self._is_number(place) else "---" for place in range(len(self.columns))]
        rows = [self.columns, rule, *([_shown(cell).replace("|", "\\|") for cell in row] for row in self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([f"## {self.title}", "", *([self.note, ""] if self.note else []), *lines]) + "\n"

    def to_html(self, level: int = 2) -> str:
        """Return the table as HTML; columns are sorted by the attribute `data-value`.

        Args:
            level: level of the heading.
        """
        numbers = [' class="number"' if self._is_number(place) else "" for place in range(len(self.columns))]
        heads = [f'<button type="button">{escape(column)}</button>' for column in self.columns]
        head = "".join(f'<th scope="col"{n}>{c}</th>' for c, n in zip(heads, numbers, strict=True))
        body = "\n".join(f"<tr>{''.join(map(_html_cell, row, numbers))}</tr>" for row in self.rows)
        note = f"<p>{escape(self.note)}</p>\n" if self.note else ""
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        title = escape(self.title)
        region = f'class="wide" role="region" tabindex="0" aria-label="{title}"'
        return f"<h{level}>{title}</h{level}>\n{note}<div {region}>{table}</div>"

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
        error = "" if cell.error is None else f" ± {cell.error:.{places}f}"
        return f"{cell.value:.{places}f}{error} {cell.mark}".rstrip()
    return f"{cell:.{_places(cell)}f}"


def _places(value: float) -> int:
    return 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0


def _html_cell(cell: Cell, kind: str) -> str:
    number = cell.value if isinstance(cell, Estimate) else cell
    value = f' data-value="{number}"' if isinstance(number, float | int) else ""
    kind = kind or (' class="long"' if len(_shown(cell)) >= LONG else "")
    return f"<td{kind}{value}>{escape(_shown(cell))}</td>"
