"""Self-contained HTML page: style, scripts and data in one file; texts are never executed as code."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from fireopd.atomic_files import write_text

__all__ = ["Page", "Section"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """Part of a page."""

    html: str
    """HTML; texts in it are escaped."""
    style: str = ""
    """CSS in addition to that of every page."""
    script: str = ""
    """Script; sections with the same script share it."""
    data: Any = None
    """JSON values for the script, in the element with the id `data`; None without."""


@dataclass(frozen=True)
class Page:
    """Contents of a page."""

    title: str
    """Title."""
    facts: Mapping[str, str]
    """Facts by name: method, files, versions."""
    sections: Sequence[Section] = ()
    """Sections in their order; at most one has data."""
    lead: str = ""
    """Introduction of one or two sentences."""

    def write(self, path: Path) -> None:
        """Write the page to a file."""
        write_text(path, self.to_html())

    def to_html(self) -> str:
        """Return the page as HTML. Its content security policy allows only its own scripts, identified by hashes."""
        scripts = list(dict.fromkeys(section.script for section in self.sections if section.script))
        styles = dict.fromkeys(section.style for section in self.sections if section.style)
        data = [section.data for section in self.sections if section.data is not None]
        elements = [f'<script id="data" type="application/json">{_script_safe(value)}</script>' for value in data]
        facts = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.facts.items()]
        return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
            title=escape(self.title),
            lead=f'<p class="lead">{escape(self.lead)}</p>' if self.lead else "",
            facts="\n".join(facts),
            policy=" ".join(map(_source, scripts)) or "'none'",
            style="\n".join([(FOLDER / "page.css").read_text(encoding="utf-8"), *styles]),
            sections="\n".join(section.html for section in self.sections),
            scripts="\n".join([*elements, *(f"<script>{script}</script>" for script in scripts)]),
        )


def _source(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _script_safe(value: Any) -> str:
    """Return JSON that is safe inside a script element: `<`, `>` and `&` are escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
