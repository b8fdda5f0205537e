"""Report of an evaluation: tables of accuracy, response statistics and differences between models."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fireopd.analysis.bootstrap import CONFIDENCE, BootstrapEstimate
from fireopd.analysis.evaluate.summary import AVERAGE, Numbers, Summary
from fireopd.analysis.tables import Cell, Estimate, Table
from fireopd.atomic_files import replacing_files

__all__ = ["tables", "write_report"]


def tables(summary: Summary) -> list[Table]:
    """Return the tables of accuracy, response statistics and, for several models, differences to the control."""
    several = len(next(iter(summary.numbers.values()))) > 1
    return [_accuracy(summary), _responses(summary), *([_differences(summary)] if several else [])]


def _accuracy(summary: Summary) -> Table:
    names = [name for name in _names(summary) if "@" in name]
    rows = [
        [benchmark, model, *(_estimate(numbers.get(name)) for name in names), _interval(numbers.get(names[0]))]
        for benchmark, model, numbers in _rows(summary)
        if names
    ]
    columns = ["benchmark", "model", *names, *(f"{CONFIDENCE:.0%} interval of {name}" for name in names[:1])]
    note = "Mean ± standard error over problems; bootstrap interval over problems."
    if any(_has_zero_width(numbers.get(names[0])) for _, _, numbers in _rows(summary) if names):
        note += " A zero-width interval only means that all problems scored alike."
    if AVERAGE in summary.numbers:
        note += f" {AVERAGE}: unweighted mean over benchmarks."
    return Table("Accuracy", columns, rows, note)


def _responses(summary: Summary) -> Table:
    names = [name for name in _names(summary) if "@" not in name]
    rows = [
        [benchmark, model, str(summary.problems[benchmark]), *(_estimate(numbers.get(name)) for name in names)]
        for benchmark, model, numbers in _rows(summary)
    ]
    columns = ["benchmark", "model", "problems", *(name.replace("_", " ") for name in names)]
    return Table("Responses", columns, rows, "Fraction of finished responses, their accuracy, and length in tokens.")


def _rows(summary: Summary) -> Iterator[tuple[str, str, Numbers]]:
    for benchmark, models in summary.numbers.items():
        for model, numbers in models.items():
            yield benchmark, model, numbers


def _names(summary: Summary) -> list[str]:
    return list(dict.fromkeys(name for _, _, numbers in _rows(summary) for name in numbers))


def _differences(summary: Summary) -> Table:
    rows: list[list[Cell]] = []
    for benchmark in summary.numbers:
        for model, numbers in summary.differences(benchmark).items():
            shown = {name: found for name, found in numbers.items() if name != "length"}
            for name, found in shown.items():
                signed = f"{found.value:+.3f}"
                rows.append([benchmark, model, name.replace("_", " "), signed, _interval(found), found.verdict])
    columns = ["benchmark", "model", "metric", "difference", f"{CONFIDENCE:.0%} interval", "verdict"]
    note = "Paired bootstrap over problems. The verdict names a direction only if the interval excludes 0."
    return Table(f"Differences to {summary.control}", columns, rows, note)


def _estimate(number: BootstrapEstimate | None) -> Cell:
    return None if number is None else Estimate(number.value, number.error)


def _has_zero_width(number: BootstrapEstimate | None) -> bool:
    return number is not None and number.interval is not None and number.interval[0] == number.interval[1]


def _interval(number: BootstrapEstimate | None) -> Cell:
    if number is None or number.interval is None:
        return None
    low, high = number.interval
    return f"{low:.3f} to {high:.3f}"


def write_report(out: Path, summary: Summary, facts: Mapping[str, Any]) -> None:
    """Write `summary.json` and `table.md`; with an error, neither.

    Args:
        out: output folder.
        summary: metrics of all models.
        facts: settings shown above the tables; "models" holds model names by label.
    """
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items() if name != "models")
    named = "\n".join(f"- {label}: `{model}`" for label, model in facts["models"].items())
    parts = ["# Evaluation", "", named, listed, "", *(table.to_markdown() for table in tables(summary))]
    with replacing_files(out) as folder:
        (folder / "summary.json").write_text(json.dumps({"settings": facts, **summary.to_json()}, indent=1) + "\n")
        (folder / "table.md").write_text("\n".join(parts), encoding="utf-8")
