"""The page: style, script and data in one file that refers to nothing outside, and in which texts are never code."""

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

from fireopd.analysis.view.quantities import KINDS, extent
from fireopd.analysis.view.trajectory_view import MOST_TOKENS, View, shares, spread
from fireopd.atomic_files import write_text

FOLDER = Path(__file__).parent
LARGEST = 65504.0
"""The largest number of two bytes."""


@dataclass(frozen=True)
class Page:
    """Trajectories, ready to be written as one HTML file."""

    title: str
    """What is shown."""
    facts: Mapping[str, str]
    """Where it comes from: method, files, versions."""
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """What `View.describe` says of each trajectory."""
    judge: str = "teacher"
    """Whose mean log-probability the scores are."""

    @classmethod
    def of(
        cls,
        title: str,
        facts: Mapping[str, str],
        views: Sequence[View],
        tokenizer: PreTrainedTokenizerBase,
        number: int | None = None,
    ) -> "Page":
        """Return the page of one or more views, of each its share of a number of trajectories, or of what fits."""
        if number is None:
            chosen = [spread(view, most_tokens=MOST_TOKENS // len(views)) for view in views]
        else:
            parts = shares(number, [len(view.reasons) for view in views])
            chosen = [spread(view, part) for view, part in zip(views, parts, strict=True)]
        rows = [row for view, own in zip(views, chosen, strict=True) for row in view.describe(own, tokenizer)]
        shown = f"{len(rows)} of {sum(len(view.reasons) for view in views)}, evenly spread over the scores"
        return cls(title, {"trajectories": shown, **facts}, rows, views[0].judge)

    def write(self, path: Path) -> None:
        """Write the file."""
        write_text(path, self.to_html())

    def to_html(self) -> str:
        """Return the page. Nothing but its own script can run in it: the policy names that by its digest."""
        script = (FOLDER / "page.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        facts = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.facts.items()]
        return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
            title=escape(self.title),
            facts="\n".join(facts),
            digest=digest,
            style=(FOLDER / "page.css").read_text(encoding="utf-8"),
            script=script,
            data=as_data(self.to_json()),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the script reads; a token's text is a place in `texts`, its numbers are two bytes each."""
        texts = {text: place for place, text in enumerate(dict.fromkeys(t for row in self.rows for t in row["pieces"]))}
        names = [name for name in KINDS if any(name in row["numbers"] for row in self.rows)]
        columns = {name: [row["numbers"][name] for row in self.rows if name in row["numbers"]] for name in names}
        kinds = [asdict(KINDS[n]) | {"name": n, "extent": extent(columns[n], KINDS[n].centre)} for n in names]
        rows = [
            row
            | {"pieces": [texts[text] for text in row["pieces"]]}
            | {name: _finite(row[name]) for name in ("score", "reward")}
            | {"numbers": {name: halves(values) for name, values in row["numbers"].items()}}
            for row in map(dict, self.rows)
        ]
        return {"judge": self.judge, "kinds": kinds, "texts": list(texts), "rows": rows}


def halves(values: Tensor) -> str:
    """Return float [T] as float16, little-endian, in base64; infinities stay infinite, NaN stays NaN."""
    within = values.clamp(-LARGEST, LARGEST).where(values.isfinite(), values)
    return base64.b64encode(within.half().numpy().astype("<f2").tobytes()).decode()


def as_data(value: Any) -> str:
    """Return JSON that cannot end the element it stands in, whatever the texts in it are."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
