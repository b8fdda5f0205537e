"""The report on trained methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from fireopd.comparisons.plans import PlannedRun
from fireopd.comparisons.reports import Report, versions
from fireopd.comparisons.results import Result, results
from fireopd.comparisons.runs import MEASURES, OVERALL, Run, read_run
from fireopd.comparisons.tables import Cell, Estimate, Table
from fireopd.comparisons.training_plots import plots
from fireopd.statistics import CONFIDENCE, ENOUGH_PAIRS

READING = (
    f"Differences are taken seed by seed, then averaged; the interval ({CONFIDENCE:.0%}, bootstrap over seeds) is that of "
    "the mean. A direction is named only where the interval does not contain 0. Each interval stands for itself: of twenty, one is expected to miss. With fewer than "
    f"{ENOUGH_PAIRS} seeds an interval is no wider than the range of the differences, and misses more often."
)
"""How a table of differences is read."""


def training_report(planned: Sequence[PlannedRun], failed: Sequence[PlannedRun], control: str, base: str) -> Report:
    """Return the report on the runs that are finished.

    Args:
        planned: all runs of the comparison, one or more of them finished.
        failed: those that were tried and failed.
        control: name of the method that the others are compared with.
        base: what all runs share, in words.
    """
    runs = [read_run(run.method, run.seed, run.folder) for run in planned if run.finished]
    missing = {run.name: "failed" if run in failed else "not run" for run in planned if not run.finished}
    found = results(runs, control)
    overall = sum(result.task == OVERALL for result in found)
    methods, seeds = (list(dict.fromkeys(of)) for of in ((r.method for r in planned), (str(r.seed) for r in planned)))
    facts = {
        "base": base,
        "methods": ", ".join(methods),
        "control": control,
        "seeds": ", ".join(seeds),
        "runs": f"{len(runs)} of {len(planned)} finished",
        "missing": ", ".join(f"{name} ({state})" for name, state in missing.items()) or "none",
        "versions": versions(),
    }
    return Report(
        title=f"{len(methods)} methods, {len(seeds)} seed{'s' if len(seeds) > 1 else ''} each",
        lead="Every method was trained from the same base configuration with the same seeds; nothing else differs.",
        facts=facts,
        tables=[*_tables(found[:overall], control), *_tables(found[overall:], control)],
        plots=plots(runs, found, control),
        data=_data(planned, runs, missing, found, control),
    )


def _summaries(found: Sequence[Result]) -> list[Table]:
    """Return a table for each task: methods, and what they come to."""
    tables = []
    for task in dict.fromkeys(result.task for result in found):
        own = {(result.method, result.measure): result for result in found if result.task == task}
        measures = [name for name in MEASURES if any(measure == name for _, measure in own)]
        rows: list[list[Cell]] = []
        for method in dict.fromkeys(method for method, _ in own):
            cells = [own.get((method, measure)) for measure in measures]
            seeds = max(len(cell.values) for cell in cells if cell)
            rows.append(
                [method, seeds, *(Estimate(cell.mean, cell.standard_error) if cell else None for cell in cells)]
            )
        note = (
            "Mean over seeds ± its standard error. " + "; ".join(f"{_label(m)}: {MEASURES[m]}" for m in measures) + "."
        )
        tables.append(Table(task[0].upper() + task[1:], ["method", "seeds", *map(_label, measures)], rows, note))
    return tables


def _tables(found: Sequence[Result], control: str) -> list[Table]:
    differences = _differences(found, control)
    return [*_summaries(found), *([differences] if differences.rows else [])]


def _differences(found: Sequence[Result], control: str) -> Table:
    columns = ["task", "measure", "method", "seeds", "difference", "low", "high", "reading"]
    rows: list[list[Cell]] = []
    for result in found:
        of = result.difference
        if of is not None:
            words = [result.task, _label(result.measure), result.method]
            rows.append([*words, of.pairs, of.mean, of.low, of.high, of.verdict])
    return Table(f"Differences to {control}, paired by seed", columns, rows, READING)


def _data(
    planned: Sequence[PlannedRun],
    runs: Sequence[Run],
    missing: Mapping[str, str],
    found: Sequence[Result],
    control: str,
) -> dict[str, Any]:
    return {
        "kind": "trainings",
        "control": control,
        "measures": MEASURES,
        "settings": {run.method: run.settings for run in planned},
        "missing": dict(missing),
        "results": [result.to_json() for result in found],
        "runs": [
            {"method": run.method, "seed": run.seed, "folder": str(run.folder), "curves": run.curves} for run in runs
        ],
    }


def _label(measure: str) -> str:
    return measure.replace("_", " ")
