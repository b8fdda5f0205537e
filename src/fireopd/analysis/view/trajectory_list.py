"""Trajectories of a page: texts, decisions and token values, in a list that is sorted, filtered and coloured."""

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.analysis.page import Section
from fireopd.analysis.view.quantities import QUANTITIES, colour_range
from fireopd.analysis.view.trajectory_view import MOST_TOKENS, View, select_rows, split_evenly

__all__ = ["TrajectoryList", "decode_float16", "encode_float16"]

FOLDER = Path(__file__).parent
LARGEST = 65504.0
"""Largest finite float16."""
DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)
"""Data of a page."""


@dataclass(frozen=True)
class TrajectoryList:
    """Trajectories with the values of their tokens."""

    rows: Sequence[Mapping[str, Any]]
    """Trajectories, as returned by `View.describe`."""
    total: int
    """Number of trajectories that the rows were selected from."""
    scored_by: str = "teacher"
    """Model whose mean log-probability is the score: teacher or student."""

    @classmethod
    def of(
        cls, views: Sequence[View], tokenizer: PreTrainedTokenizerBase, number: int | None = None
    ) -> "TrajectoryList":
        """Return the trajectories of one or more views.

        Args:
            views: views, each of which gets an equal share of the list.
            tokenizer: tokenizer of the student.
            number: total number of trajectories; None for as many as `MOST_TOKENS` allows.
        """
        if number is None:
            chosen = [select_rows(view, most_tokens=MOST_TOKENS // len(views)) for view in views]
        else:
            parts = split_evenly(number, [len(view.reasons) for view in views])
            chosen = [select_rows(view, part) for view, part in zip(views, parts, strict=True)]
        rows = [row for view, own in zip(views, chosen, strict=True) for row in view.describe(own, tokenizer)]
        return cls(rows, sum(len(view.reasons) for view in views), views[0].scored_by)

    @classmethod
    def read(cls, pages: Sequence[Path], most_tokens: int = MOST_TOKENS) -> "TrajectoryList":
        """Return the trajectories of written pages, an equal share of each.

        Args:
            pages: pages, at least one; all have the same order of trajectories, best score first.
            most_tokens: maximum number of response tokens.
        """
        rows, total, scored_by = list[Mapping[str, Any]](), 0, "teacher"
        for page in pages:
            data = json.loads(found[1]) if (found := DATA.search(page.read_text(encoding="utf-8"))) else {"rows": []}
            own = list(_rows(data))
            mean = max(1.0, sum(len(row["tokens"]) for row in own) / max(1, len(own)))
            number = min(len(own), max(1, int(most_tokens / len(pages) / mean)))
            places = np.linspace(0, len(own) - 1, number).round().astype(int) if own else ()
            rows += [own[place] for place in places]
            total, scored_by = total + len(own), data.get("scored_by", scored_by)
        return cls(rows, total, scored_by)

    @property
    def shown(self) -> str:
        """Number of trajectories, and how they were selected."""
        return f"{len(self.rows)} of {self.total}, evenly spaced in the ranking by score"

    def section(self) -> Section:
        """Return the section of a page."""
        html, style, script = (
            (FOLDER / f"trajectories.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
        )
        return Section(html, style, script, self.to_json())

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


def _rows(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the data of a page, as returned by `View.describe`; a score that is not finite is NaN."""
    for row in data["rows"]:
        values = {name: decode_float16(text) for name, text in row["values"].items()}
        tokens = [data["texts"][place] for place in row["tokens"]]
        yield row | {"tokens": tokens, "values": values, "score": math.nan if row["score"] is None else row["score"]}


def encode_float16(values: Tensor) -> str:
    """Return float [T] as little-endian float16 in base64; finite values are clamped, infinities and NaN are kept."""
    within = values.clamp(-LARGEST, LARGEST).where(values.isfinite(), values)
    return base64.b64encode(within.half().numpy().astype("<f2").tobytes()).decode()


def decode_float16(text: str) -> Tensor:
    """Return float32 [T] of little-endian float16 in base64."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
