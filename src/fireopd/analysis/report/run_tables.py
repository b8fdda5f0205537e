"""Tables of a run: results, warnings, decisions of the filter, weights by token, costs, metrics of a chapter."""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from fireopd.analysis.metrics_file import Curve
from fireopd.analysis.report.run_files import RunFiles
from fireopd.analysis.tables import Cell, Table
from fireopd.analysis.view import TrajectoryList

__all__ = ["costs", "decisions", "metrics", "results", "tokens", "warnings"]

NUMBER = re.compile(r"-?\d[\d.e+-]*|-?inf|nan")
"""Number in the text of a filter."""
SHOWN = 20
"""Maximum number of tokens in the table of weights."""


def results(run: RunFiles) -> Table:
    """Return avg@k by task, before and after training; of an unfinished run the first and the last one."""
    columns = ["task", "student before", "student after", "teacher", "gap closed"]
    title = "Accuracy on held-out prompts, avg@k"
    measured = run.summary.get("tasks") or {task: _ends(run.curves[f"val/{task}/avg_at_k"]) for task in run.tasks}
    rows: list[list[Cell]] = []
    for task, row in measured.items():
        before, after, teacher = row["student_before"], row["student_after"], row.get("teacher")
        closed = (after - before) / (teacher - before) if teacher is not None and teacher > before else None
        rows.append([task, before, after, teacher, None if closed is None else f"{closed:.0%}"])
    return Table(title, columns, rows)


def warnings(run: RunFiles) -> Table:
    """Return the warnings of the health watch."""
    rows: list[list[Cell]] = [[found["step"], str(found["warning"])] for found in run.warnings]
    return Table("Warnings", ["step", "warning"], rows or [["", "none"]])


def decisions(shown: TrajectoryList) -> Table:
    """Return the numbers of kept and dropped trajectories by teacher and criterion of the filter."""
    groups: dict[tuple[str, str], list[Mapping[str, object]]] = {}
    for row in shown.rows:
        criterion = NUMBER.sub("…", str(row["reason"])) or "all trajectories are kept"
        groups.setdefault((str(row["teacher"]), criterion), []).append(row)
    rows: list[list[Cell]] = []
    for (teacher, criterion), group in sorted(groups.items()):
        kept, dropped = ([row for row in group if row["kept"] is kept] for kept in (True, False))
        lengths = [fmean(len(row["tokens"]) for row in part) if part else None for part in (kept, dropped)]  # type: ignore[arg-type]
        rows.append([teacher, criterion, len(kept), len(dropped), *lengths])
    columns = ["teacher", "criterion", "kept", "dropped", "tokens if kept", "tokens if dropped"]
    note = f"Trajectories below: {shown.shown}. The criterion of each one, with its numbers, is in the list."
    return Table("Decisions of the filter", columns, rows, note)


def tokens(shown: TrajectoryList) -> Table:
    """Return the tokens with the largest shares of the weight of kept trajectories."""
    texts = [text for row in shown.rows if row["kept"] for text in row["tokens"]]
    found = [row["values"] for row in shown.rows if row["kept"] and "weight" in row["values"]]
    if not found:
        return Table("Weight by token", ["token", "number", "mean weight", "share of weight"], [])
    weight = torch.cat([values["weight"] for values in found]).nan_to_num()
    order = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    places = torch.tensor([order[text] for text in texts])
    number = torch.zeros(len(order)).index_add(0, places, torch.ones(len(places)))
    total = torch.zeros(len(order)).index_add(0, places, weight)
    names, share = list(order), total / total.sum().clamp(min=1e-12)
    rows: list[list[Cell]] = [
        [repr(names[place])[1:-1], int(number[place]), (total / number)[place].item(), share[place].item()]
        for place in total.argsort(descending=True, stable=True)[:SHOWN].tolist()
    ]
    note = "Tokens of the kept trajectories below, with the largest shares of the total weight."
    return Table("Weight by token", ["token", "number", "mean weight", "share of weight"], rows, note)


def costs(run: RunFiles) -> Table:
    """Return the seconds of each part of the steps."""
    parts = {tag.removeprefix("time/"): list(curve.values()) for tag, curve in run.curves.items() if tag[:5] == "time/"}
    total = sum(map(sum, parts.values()))
    rows: list[list[Cell]] = [
        [part, sum(values), sum(values) / total if total else None, fmean(values)]
        for part, values in sorted(parts.items(), key=lambda item: -sum(item[1]))
    ]
    return Table("Time by part of a step", ["part", "seconds", "share", "seconds per step"], rows)


def metrics(curves: Mapping[str, Curve], title: str) -> Table:
    """Return first, last, lowest and highest value of each metric."""
    rows: list[list[Cell]] = []
    for tag, curve in curves.items():
        values: Sequence[float] = [curve[step] for step in sorted(curve)]
        rows.append([tag, values[0], values[-1], min(values), max(values)])
    return Table(title, ["metric", "first", "last", "lowest", "highest"], rows)


def _ends(curve: Curve) -> dict[str, float | None]:
    return {"student_before": curve[min(curve)], "student_after": curve[max(curve)], "teacher": None}
