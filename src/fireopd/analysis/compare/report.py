"""A report: the same findings as JSON, as Markdown, as plots, and as one page that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from fireopd.analysis.compare.plots import Plot
from fireopd.analysis.tables import Table
from fireopd.atomic_files import write_text

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Report:
    """What was found, ready to be written."""

    title: str
    """What was compared."""
    lead: str
    """How, in a sentence or two."""
    facts: Mapping[str, str]
    """Settings, versions, seeds, what is missing."""
    tables: Sequence[Table]
    """The first two are those that matter: they are shown on the terminal, and above the plots."""
    plots: Sequence[Plot]
    """Likewise."""
    data: Mapping[str, Any]
    """Everything, as JSON knows it."""

    def write(self, out: Path) -> None:
        """Write `comparison.json`, `table.md`, `plots/<name>.png` and `index.html`."""
        (out / "plots").mkdir(parents=True, exist_ok=True)
        write_text(out / "comparison.json", json.dumps({"facts": self.facts, **self.data}, indent=1) + "\n")
        write_text(out / "table.md", self.to_markdown())
        for plot in self.plots:
            plot.write_png(out / "plots")
        write_text(out / "index.html", self.to_html())

    def to_markdown(self) -> str:
        """Return facts and tables as Markdown."""
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        return "\n".join([f"# {self.title}", "", self.lead, "", facts, "", *(t.to_markdown() for t in self.tables)])

    def to_html(self) -> str:
        """Return the page: styles, plots and the sorting of tables are in it, and it refers to nothing outside."""
        facts = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.facts.items()]
        return Template(TEMPLATE.read_text()).substitute(
            title=escape(self.title),
            lead=escape(self.lead),
            facts="\n".join(facts),
            tables="\n".join(table.to_html() for table in self.tables[:2]),
            plots="\n".join(_figure(plot) for plot in self.plots),
            details="\n".join(table.to_html() for table in self.tables[2:]),
        )


def _figure(plot: Plot) -> str:
    return f"<h2>{escape(plot.title)}</h2>\n<p>{escape(plot.caption)}</p>\n<figure>{plot.to_svg()}</figure>"
