"""Report on trained methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from fireopd.analysis.bootstrap import CONFIDENCE, ENOUGH_PAIRS
from fireopd.analysis.compare.paired_differences import Result, results
from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.analysis.compare.report import Report
from fireopd.analysis.compare.run_results import MEASURES, Run, read_run
from fireopd.analysis.compare.training_plots import plots
from fireopd.analysis.provenance import versions
from fireopd.analysis.tables import Cell, Estimate, Table

__all__ = ["training_report"]

DIFFERENCES_NOTE = (
    f"Mean paired difference over seeds; low and high: {CONFIDENCE:.0%} bootstrap interval over seeds. The verdict"
    " names a direction only if the interval excludes 0. Intervals are not corrected for multiple comparisons: of"
    f" twenty, one is expected to miss the true value. With fewer than {ENOUGH_PAIRS} seeds an interval cannot reach"
    f" {CONFIDENCE:.0%}: it is the range of the differences, and the verdict only states that all have the same sign."
)
"""Note of a table of differences."""


def training_report(planned: Sequence[PlannedRun], failed: Sequence[PlannedRun], control: str, base: str) -> Report:
    """Return the report on all finished runs.

    Args:
        planned: all runs of the comparison, at least one of them finished.
        failed: failed runs.
        control: name of the method that the others are compared with.
        base: configuration that all runs share, as text.
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
        title=f"{len(methods)} methods with {len(seeds)} seed{'s' if len(seeds) > 1 else ''} each",
        lead="All methods were trained with the same base configuration and the same seeds.",
        facts=facts,
        tables=_tables(found, control),
        plots=plots(runs, found, control),
        data=_data(planned, runs, missing, found, control),
    )


def _tables(found: Sequence[Result], control: str) -> list[Table]:
    """Return two tables for each task: results of all methods, and differences to the control."""
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
    note = "Mean ± standard error over seeds. " + "; ".join(f"{_label(m)}: {MEASURES[m]}" for m in measures) + "."
    return Table(title, ["method", "seeds", *map(_label, measures)], rows, note)


def _differences(found: Sequence[Result], title: str) -> Table:
    columns = ["measure", "method", "seeds", "difference", "low", "high", "verdict"]
    compared = [(result, result.difference) for result in found if result.difference]
    rows: list[list[Cell]] = [
        [_label(r.measure), r.method, d.pairs, d.mean, d.low, d.high, d.verdict] for r, d in compared
    ]
    return Table(title, columns, rows, DIFFERENCES_NOTE)


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
