"""Report on methods trained with several values of one or two settings."""

from collections.abc import Sequence

from fireopd.analysis.bootstrap import CONFIDENCE
from fireopd.analysis.compare.condition_results import Outcome, missing_runs, outcomes, read_finished
from fireopd.analysis.compare.conditions import Condition
from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.analysis.compare.report import Report
from fireopd.analysis.compare.run_results import OVERALL
from fireopd.analysis.compare.sensitivity_plots import sensitivity_curves, sensitivity_maps
from fireopd.analysis.provenance import versions
from fireopd.analysis.tables import Cell, Estimate, Table

__all__ = ["sensitivity_report"]

NOTE = (
    "Mean over seeds ± standard error; mean paired difference with the interval. All intervals of a column hold"
    f" together with {CONFIDENCE:.0%} (Student's t with a Bonferroni correction)."
)
"""Note of a table."""
MEASURES = {"final": "Final avg@k", "finished": "Finished responses"}
"""Measures with a table, and its title."""


def sensitivity_report(
    planned: Sequence[PlannedRun],
    failed: Sequence[PlannedRun],
    control: str,
    base: str,
    conditions: Sequence[Condition],
) -> Report:
    """Return the report on all finished runs.

    Args:
        planned: all runs of the comparison, at least one of them finished.
        failed: failed runs.
        control: method that the others are compared with; a single method is compared with its first values.
        base: configuration that all runs share, as text.
        conditions: combinations of the varied values.
    """
    runs = read_finished(planned)
    methods, seeds = (list(dict.fromkeys(of)) for of in ((r.method for r in planned), (str(r.seed) for r in planned)))
    first = conditions[0].name
    several = len(methods) > 1
    references = {place: (place[0], control) if several else (first, place[1]) for place in runs}
    reference = control if several else "the first values"
    found = {measure: outcomes(runs, OVERALL, measure, references) for measure in MEASURES}
    keys = list(conditions[0].values)
    draw = sensitivity_curves if len(keys) == 1 else sensitivity_maps
    facts = {
        "base": base,
        "varied": ", ".join(keys),
        "methods": ", ".join(methods),
        "differences to": reference,
        "seeds": ", ".join(seeds),
        "runs": f"{sum(map(len, runs.values()))} of {len(planned)} finished",
        "missing": missing_runs(planned, failed) or "none",
        "versions": versions(),
    }
    tables = [
        Table(title, _columns(keys), _rows(list(found[measure].values()), conditions), NOTE)
        for measure, title in MEASURES.items()
        if found[measure]
    ]
    return Report(
        title=f"Sensitivity to {' and '.join(keys)}",
        lead=f"{len(conditions)} combinations of values, {len(seeds)} seed{'s' if len(seeds) > 1 else ''} each.",
        facts=facts,
        tables=tables,
        plots=[draw(found["final"], conditions, reference)],
        above=0,
        data={
            "kind": "sensitivity",
            "values": {condition.name: condition.values for condition in conditions},
            "reference": reference,
            "settings": {f"{run.condition}/{run.method}": run.settings for run in planned},
            **{measure: [outcome.to_json() for outcome in own.values()] for measure, own in found.items()},
        },
    )


def _columns(keys: Sequence[str]) -> list[str]:
    return [*keys, "method", "seeds", "mean", "difference", "low", "high", "verdict"]


def _rows(found: Sequence[Outcome], conditions: Sequence[Condition]) -> list[list[Cell]]:
    values = {condition.name: [str(value) for value in condition.values.values()] for condition in conditions}
    rows: list[list[Cell]] = []
    for outcome in found:
        change = outcome.difference
        compared = [change.mean, change.low, change.high, change.verdict] if change else [None, None, None, ""]
        mean = Estimate(outcome.mean, outcome.standard_error)
        rows.append([*values[outcome.condition], outcome.method, len(outcome.values), mean, *compared])
    return rows
