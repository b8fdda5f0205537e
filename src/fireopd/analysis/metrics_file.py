"""Curves in the `metrics.csv` of a run."""

import csv
from pathlib import Path

__all__ = ["Curve", "read_metrics"]

Curve = dict[int, float]
"""Values by optimizer step."""


def read_metrics(path: Path) -> dict[str, Curve]:
    """Return the columns of a file by name; a missing or damaged file has none, and cells that are no numbers go."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    curves: dict[str, Curve] = {}
    for row in rows:
        step = _number(row.pop("step", None))
        for name, text in row.items():
            value = _number(text)
            if step is not None and value is not None and isinstance(name, str):
                curves.setdefault(name, {})[int(step)] = value
    return curves


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except (TypeError, ValueError):  # the last row of a file that is cut short
        return None
