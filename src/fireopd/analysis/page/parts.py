"""Sections of a page: sortable tables, and figures."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from fireopd.analysis.page.page import Section
from fireopd.analysis.tables import Table

__all__ = ["figure", "tables"]

SORTING = Path(__file__).with_name("tables.js")


def tables(given: Sequence[Table]) -> Section:
    """Return tables that are sorted by a column when its heading is pressed."""
    return Section("\n".join(table.to_html() for table in given), script=SORTING.read_text(encoding="utf-8"))


def figure(title: str, caption: str, svg: str) -> Section:
    """Return a figure with title and caption."""
    return Section(f"<h2>{escape(title)}</h2>\n<p>{escape(caption)}</p>\n<figure>{svg}</figure>")
