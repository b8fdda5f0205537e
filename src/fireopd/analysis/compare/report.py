"""Report of a comparison: JSON, Markdown, plots and a self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.analysis.compare.plots import Plot
from fireopd.analysis.page import Page, figure, tables
from fireopd.analysis.tables import Table
from fireopd.atomic_files import replacing_files

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Contents of a report."""

    title: str
    """Title."""
    lead: str
    """Introduction of one or two sentences."""
    facts: Mapping[str, str]
    """Settings, versions, seeds and missing runs, by name."""
    tables: Sequence[Table]
    """Tables; the first two are the main ones, shown on the terminal."""
    plots: Sequence[Plot]
    """Plots."""
    data: Mapping[str, Any]
    """All results as JSON values."""
    above: int = 2
    """Number of tables above the plots of the page."""

    def write(self, out: Path) -> None:
        """Write `comparison.json`, `table.md`, `plots/<name>.png` and `index.html`; with an error, none of them."""
        texts = {
            "comparison.json": json.dumps({"facts": self.facts, **self.data}, indent=1) + "\n",
            "table.md": self.to_markdown(),
            "index.html": self.to_html(),
        }
        with replacing_files(out) as folder:
            (folder / "plots").mkdir()
            for plot in self.plots:
                plot.write_png(folder / "plots")
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")

    def to_markdown(self) -> str:
        """Return facts and tables as Markdown."""
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        return "\n".join([f"# {self.title}", "", self.lead, "", facts, "", *(t.to_markdown() for t in self.tables)])

    def to_html(self) -> str:
        """Return a self-contained HTML page with plots and sortable tables."""
        plots = [figure(plot.title, plot.caption, plot.to_svg()) for plot in self.plots]
        sections = [tables(self.tables[: self.above]), *plots, tables(self.tables[self.above :])]
        return Page(self.title, self.facts, sections, self.lead).to_html()
