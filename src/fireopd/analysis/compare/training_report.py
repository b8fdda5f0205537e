"""The report on trained methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from fireopd.analysis.bootstrap import CONFIDENCE, ENOUGH_PAIRS
from fireopd.analysis.compare.paired_differences import Result, results
from fireopd.analysis.compare.report import Report
from fireopd.analysis.compare.run_plan import PlannedRun
from fireopd.analysis.compare.run_results import MEASURES, Run, read_run
from fireopd.analysis.compare.training_plots import plots
from fireopd.analysis.provenance import versions
from fireopd.analysis.tables import Cell, Estimate, Table

READING = (
    f"Differences are taken seed by seed, then averaged; low and high are the ends of the {CONFIDENCE:.0%} interval"
    " of that mean, by bootstrap over seeds. A direction is named only where the interval does not contain 0. Each"
    f" interval stands for itself: of twenty, one is expected to miss. With fewer than {ENOUGH_PAIRS} seeds none can"
    f" reach {CONFIDENCE:.0%}: it is the range of the differences, and the reading says only that all have one sign."
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
        tables=_tables(found, control),
        plots=plots(runs, found, control),
        data=_data(planned, runs, missing, found, control),
    )


def _tables(found: Sequence[Result], control: str) -> list[Table]:
    """Return two tables for each task: what the methods come to, and their differences to the control."""
    tables = []
    for task in dict.fromkeys(result.task for result in found):
        own = [result for result in found if result.task == task]
        title = task[0].upper() + task[1:]
        tables.append(_summary(own, title))
        if any(result.difference for result in own):
            tables.append(_differences(own, f"{title}: differences to {control}, paired by seed"))
    return tables


def _summary(found: Sequence[Result], title: str) -> Table:
    table = {(result.method, result.measure): result for result in found}
    measures = [name for name in MEASURES if any(measure == name for _, measure in table)]
    rows: list[list[Cell]] = []
    for method in dict.fromkeys(result.method for result in found):
        cells = [table.get((method, measure)) for measure in measures]
        seeds = max(len(cell.values) for cell in cells if cell)
        rows.append([method, seeds, *(Estimate(cell.mean, cell.standard_error) if cell else None for cell in cells)])
    note = "Mean over seeds ± its standard error. " + "; ".join(f"{_label(m)}: {MEASURES[m]}" for m in measures) + "."
    return Table(title, ["method", "seeds", *map(_label, measures)], rows, note)


def _differences(found: Sequence[Result], title: str) -> Table:
    columns = ["measure", "method", "seeds", "difference", "low", "high", "reading"]
    compared = [(result, result.difference) for result in found if result.difference]
    rows: list[list[Cell]] = [
        [_label(r.measure), r.method, d.pairs, d.mean, d.low, d.high, d.verdict] for r, d in compared
    ]
    return Table(title, columns, rows, READING)


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
