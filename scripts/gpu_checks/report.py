"""JSON and Markdown of the answers."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpu_checks.questions import Answer
from gpu_checks.sizes import Sizes

NOT_MEASURED = "Small sizes: a test of the script, no measurement."
"""Note above the tables of small sizes."""


def to_json(sizes: Sizes, answers: Mapping[str, Answer], seconds: float) -> str:
    """Return the sizes and all answers."""
    found: dict[str, Any] = {"device": sizes.device_name, "small": sizes.tiny_models, "seconds": round(seconds, 1)}
    found |= {"sizes": asdict(sizes), "questions": {name: asdict(answer) for name, answer in answers.items()}}
    return json.dumps(found, indent=1) + "\n"


def to_markdown(sizes: Sizes, answers: Mapping[str, Answer], seconds: float) -> str:
    """Return a table for each question."""
    lines = [f"Device `{sizes.device_name}`, {seconds:.0f} s in all.", ""]
    if sizes.tiny_models:
        lines += [NOT_MEASURED, ""]
    for answer in answers.values():
        lines += [f"### {answer.title}", "", *_table(answer), ""]
        if answer.problem:
            lines += [f"Not finished: {answer.problem}.", ""]
    return "\n".join(lines)


def _table(answer: Answer) -> list[str]:
    names = list(dict.fromkeys(name for row in answer.rows for name in row))
    if not names:
        return ["No rows."]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return lines + [f"| {' | '.join(_cell(row.get(name, '')) for name in names)} |" for row in answer.rows]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def to_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of progress."""
    values = (f"{name} {_cell(value)}" for name, value in row.items() if name != "case")
    return f"  {row['case']}: {', '.join(values)}"
