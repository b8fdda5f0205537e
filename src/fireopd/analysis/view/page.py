"""Self-contained HTML page of trajectories: style, script and data in one file; texts are never executed as code."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.analysis.view.quantities import QUANTITIES, colour_range
from fireopd.analysis.view.trajectory_view import MOST_TOKENS, View, select_rows, split_evenly
from fireopd.atomic_files import write_text

__all__ = ["Page", "encode_float16"]

FOLDER = Path(__file__).parent
LARGEST = 65504.0
"""Largest finite float16."""


@dataclass(frozen=True)
class Page:
    """Contents of a page."""

    title: str
    """Title."""
    facts: Mapping[str, str]
    """Facts by name: method, files, versions."""
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Trajectories, as returned by `View.describe`."""
    scored_by: str = "teacher"
    """Model whose mean log-probability is the score: teacher or student."""

    @classmethod
    def of(
        cls,
        title: str,
        facts: Mapping[str, str],
        views: Sequence[View],
        tokenizer: PreTrainedTokenizerBase,
        number: int | None = None,
    ) -> "Page":
        """Return a page of one or more views.

        Args:
            title: title of the page.
            facts: facts by name.
            views: views, each of which gets an equal share of the page.
            tokenizer: tokenizer of the student.
            number: total number of trajectories; None for as many as `MOST_TOKENS` allows.
        """
        if number is None:
            chosen = [select_rows(view, most_tokens=MOST_TOKENS // len(views)) for view in views]
        else:
            parts = split_evenly(number, [len(view.reasons) for view in views])
            chosen = [select_rows(view, part) for view, part in zip(views, parts, strict=True)]
        rows = [row for view, own in zip(views, chosen, strict=True) for row in view.describe(own, tokenizer)]
        shown = f"{len(rows)} of {sum(len(view.reasons) for view in views)}, evenly spaced in the ranking by score"
        return cls(title, {"trajectories": shown, **facts}, rows, views[0].scored_by)

    def write(self, path: Path) -> None:
        """Write the page to a file."""
        write_text(path, self.to_html())

    def to_html(self) -> str:
        """Return the page as HTML. Its content security policy allows only its own script, identified by hash."""
        script = (FOLDER / "page.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        facts = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.facts.items()]
        return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
            title=escape(self.title),
            facts="\n".join(facts),
            digest=digest,
            style=(FOLDER / "page.css").read_text(encoding="utf-8"),
            script=script,
            data=_script_safe(self.to_json()),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the data of the script; tokens are indices into `texts`, and their values are float16 in base64."""
        texts = {text: place for place, text in enumerate(dict.fromkeys(t for row in self.rows for t in row["tokens"]))}
        names = [name for name in QUANTITIES if any(name in row["values"] for row in self.rows)]
        columns = {name: [row["values"][name] for row in self.rows if name in row["values"]] for name in names}
        quantities = [
            asdict(QUANTITIES[name]) | {"name": name, "range": colour_range(columns[name], QUANTITIES[name].centre)}
            for name in names
        ]
        rows = [
            row
            | {"tokens": [texts[text] for text in row["tokens"]]}
            | {name: _finite(row[name]) for name in ("score", "reward")}
            | {"values": {name: encode_float16(values) for name, values in row["values"].items()}}
            for row in map(dict, self.rows)
        ]
        return {"scored_by": self.scored_by, "quantities": quantities, "texts": list(texts), "rows": rows}


def encode_float16(values: Tensor) -> str:
    """Return float [T] as little-endian float16 in base64; finite values are clamped, infinities and NaN are kept."""
    within = values.clamp(-LARGEST, LARGEST).where(values.isfinite(), values)
    return base64.b64encode(within.half().numpy().astype("<f2").tobytes()).decode()


def _script_safe(value: Any) -> str:
    """Return JSON that is safe inside a script element: `<`, `>` and `&` are escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
