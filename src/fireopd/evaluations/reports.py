"""What is shown of an evaluation: a table of the models, and one of their differences."""

import json
from collections.abc import Mapping
from pathlib import Path

from fireopd.comparisons.tables import Cell, Estimate, Table
from fireopd.evaluations.summaries import AVERAGE, Summary
from fireopd.files import write_text
from fireopd.statistics import Bootstrapped

PERCENT = 95
"""Confidence of the intervals that are shown, in percent."""


def tables(summary: Summary) -> list[Table]:
    """Return the table of the models, and, where there are several, that of their differences."""
    several = len(next(iter(summary.numbers.values()))) > 1
    return [_models(summary), *([_differences(summary)] if several else [])]


def _models(summary: Summary) -> Table:
    named = dict.fromkeys(name for models in summary.numbers.values() for own in models.values() for name in own)
    names = [name for name in named if name != "length"] + ["length"]
    first = next((name for name in names if name.startswith("avg@")), None)
    rows: list[list[Cell]] = []
    for benchmark, models in summary.numbers.items():
        for model, numbers in models.items():
            row: list[Cell] = [benchmark, str(summary.problems[benchmark]), model]
            for name in names:
                row.append(_estimate(numbers.get(name)))
                if name == first:
                    row.append(_interval(numbers.get(name)))
            rows.append(row)
    columns = ["benchmark", "problems", "model"]
    for name in names:
        columns += [name.replace("_", " "), f"{PERCENT} % interval"] if name == first else [name.replace("_", " ")]
    note = f"Mean ± standard error over problems; length in tokens; bootstrap intervals over problems, {PERCENT} %."
    if AVERAGE in summary.numbers:
        note += f" {AVERAGE}: every benchmark counts alike."
    return Table("Models", columns, rows, note)


def _differences(summary: Summary) -> Table:
    rows: list[list[Cell]] = []
    for benchmark in summary.numbers:
        for model, numbers in summary.differences(benchmark).items():
            shown = {name: found for name, found in numbers.items() if name != "length"}
            for name, found in shown.items():
                signed = f"{found.value:+.3f}"
                rows.append([benchmark, model, name.replace("_", " "), signed, _interval(found), found.verdict])
    columns = ["benchmark", "model", "number", "difference", f"{PERCENT} % interval", "verdict"]
    note = "The same problems for both models, resampled together. A direction stands only where 0 is outside."
    return Table(f"Differences to {summary.control}", columns, rows, note)


def _estimate(number: Bootstrapped | None) -> Cell:
    return None if number is None else Estimate(number.value, number.error)


def _interval(number: Bootstrapped | None) -> Cell:
    if number is None or number.interval is None:
        return None
    low, high = number.interval
    return f"{low:.3f} to {high:.3f}"


def write_report(out: Path, summary: Summary, facts: Mapping[str, str]) -> None:
    """Write `summary.json` and `table.md`; the facts stand above the tables."""
    write_text(out / "summary.json", json.dumps({"settings": facts, **summary.to_json()}, indent=1) + "\n")
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    parts = ["# Evaluation", "", listed, "", *(table.to_markdown() for table in tables(summary))]
    write_text(out / "table.md", "\n".join(parts))
