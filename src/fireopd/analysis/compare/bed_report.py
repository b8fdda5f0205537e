"""Report on methods trained on several test beds."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from fireopd.analysis.bootstrap import CONFIDENCE
from fireopd.analysis.compare import bed_plots
from fireopd.analysis.compare.condition_results import (
    Cost,
    Outcome,
    costs,
    missing_runs,
    outcomes,
    read_finished,
    regrets,
)
from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.analysis.compare.report import Report
from fireopd.analysis.compare.run_results import OVERALL, Run
from fireopd.analysis.provenance import versions
from fireopd.analysis.tables import Cell, Estimate, Table

__all__ = ["bed_report"]

Place = tuple[str, str]
"""Bed and method."""
Outcomes = Mapping[Place, Outcome]

MATRIX_NOTE = (
    f"Mean paired difference over seeds ± half the length of its interval. The intervals of all differences of the"
    f" table hold together with {CONFIDENCE:.0%} (Student's t with a Bonferroni correction). ▲ and ▼: the interval"
    " excludes 0. △ and ▽: only the narrower interval of this difference by itself excludes 0, which is expected by"
    " chance for one in twenty differences without an effect. No mark: no difference shown. No interval: a single seed."
)
"""Note of a matrix."""
REGRET_NOTE = (
    "Regret: final avg@k of the best method of a bed minus that of the method, from means over seeds. Means are over"
    " beds. Tokens: responses generated in training, thousands per run. Seconds depend on the load of the machine."
)
"""Note of the table of methods."""


def bed_report(planned: Sequence[PlannedRun], failed: Sequence[PlannedRun], control: str, base: str) -> Report:
    """Return the report on all finished runs.

    Args:
        planned: all runs of the comparison, at least one of them finished.
        failed: failed runs.
        control: name of the method that the others are compared with.
        base: configuration that all runs share, as text.
    """
    runs = read_finished(planned)
    references = {(bed, method): (bed, control) for bed, method in runs}
    final, finished = (outcomes(runs, OVERALL, measure, references) for measure in ("final", "finished"))
    spent = costs(runs, planned)
    beds, methods, seeds = (
        list(dict.fromkeys(of))
        for of in ((r.condition for r in planned), (r.method for r in planned), (str(r.seed) for r in planned))
    )
    compared = sum(outcome.difference is not None for outcome in final.values())
    facts = {
        "base": base,
        "beds": ", ".join(beds),
        "methods": ", ".join(methods),
        "control": control,
        "seeds": ", ".join(seeds),
        "runs": f"{sum(map(len, runs.values()))} of {len(planned)} finished",
        "missing": missing_runs(planned, failed) or "none",
        "comparisons": str(compared),
        "least worst regret": _least_regret(final) or "no method has results on all beds",
        "versions": versions(),
    }
    return Report(
        title=" on ".join([_number(methods, "method"), _number(beds, "test bed")]) + f", {_number(seeds, 'seed')}",
        lead="Every method was trained on every bed with the same base configuration and the same seeds.",
        facts=facts,
        tables=_tables(runs, final, finished, spent, control),
        plots=_plots(runs, final, spent, control),
        data={
            "kind": "beds",
            "control": control,
            "settings": {f"{run.condition}/{run.method}": run.settings for run in planned},
            "final": [outcome.to_json() for outcome in final.values()],
            "finished": [outcome.to_json() for outcome in finished.values()],
            "costs": [{"bed": b, "method": m, "tokens": c.tokens, "seconds": c.seconds} for (b, m), c in spent.items()],
            "regret": {method: regret.by_condition for method, regret in regrets(final).items()},
            "runs": [_run(bed, run) for (bed, _), own in runs.items() for run in own],
        },
    )


def _number(names: Sequence[str], kind: str) -> str:
    return f"{len(names)} {kind}{'' if len(names) == 1 else 's'}"


def _run(bed: str, run: Run) -> dict[str, Any]:
    return {
        "bed": bed,
        "method": run.method,
        "seed": run.seed,
        "folder": str(run.folder),
        "measures": {f"{task}/{measure}": value for (task, measure), value in run.measures().items()},
    }


def _least_regret(final: Outcomes) -> str:
    """Return the method with the smallest worst regret as text."""
    complete = {method: regret.worst for method, regret in regrets(final).items() if regret.complete}
    if not complete:
        return ""
    best = min(complete, key=lambda method: complete[method][1])
    return f"{best}: {complete[best][1]:.3f}, on {complete[best][0]}"


def _plots(runs: Mapping[Place, Sequence[Run]], final: Outcomes, spent: Mapping[Place, Cost], control: str) -> list:
    made = [bed_plots.profiles(final, bed_plots.accuracy_before(runs), control)]
    if any(outcome.difference for outcome in final.values()):
        made.insert(0, bed_plots.matrix(final, control))
    cost = bed_plots.accuracy_and_cost(final, spent)
    return [*made, cost] if cost else made


def _tables(
    runs: Mapping[Place, Sequence[Run]],
    final: Outcomes,
    finished: Outcomes,
    spent: Mapping[Place, Cost],
    control: str,
) -> list[Table]:
    beds = list(dict.fromkeys(bed for bed, _ in runs))
    return [
        _matrix(final, f"Final avg@k, differences to {control}"),
        _methods(final, spent),
        _matrix(finished, f"Finished responses, differences to {control}"),
        *(_bed(bed, runs, final, spent) for bed in beds),
    ]


def _matrix(found: Outcomes, title: str) -> Table:
    """Return differences to the control: one row for each method, one column for each bed."""
    beds = list(dict.fromkeys(bed for bed, _ in found))
    methods = list(dict.fromkeys(method for (_, method), outcome in found.items() if outcome.difference))
    rows = [[method, *(_difference(found.get((bed, method))) for bed in beds)] for method in methods]
    return Table(title, ["method", *(bed.replace("_", " ") for bed in beds)], rows, MATRIX_NOTE)


def _difference(outcome: Outcome | None) -> Cell:
    if outcome is None or outcome.difference is None:
        return None
    difference = outcome.difference
    half = None if difference.high is None else difference.high - difference.mean
    return Estimate(difference.mean, half, outcome.mark)


def _methods(final: Outcomes, spent: Mapping[Place, Cost]) -> Table:
    """Return one row for each method over all beds."""
    rows: list[list[Cell]] = []
    for method, regret in regrets(final).items():
        own = {place: outcome for place, outcome in final.items() if place[1] == method}
        marks = [outcome.mark for outcome in own.values()]
        bed, worst = regret.worst
        tokens, seconds = (fmean([getattr(spent[place], name) for place in own]) for name in ("tokens", "seconds"))
        mean = fmean([outcome.mean for outcome in own.values()])
        counts: list[Cell] = [len(own), mean, marks.count("▲"), marks.count("▼")]
        rows.append([method, *counts, regret.mean, worst, bed, tokens / 1000, seconds])
    columns = ["method", "beds", "final avg@k", "▲", "▼", "mean regret", "worst regret", "worst on"]
    return Table("Methods over all beds", [*columns, "tokens, thousands", "seconds"], rows, REGRET_NOTE)


def _bed(bed: str, runs: Mapping[Place, Sequence[Run]], final: Outcomes, spent: Mapping[Place, Cost]) -> Table:
    """Return one row for each method: accuracy by task, finished responses, length, cost."""
    own = {method: outcome for (name, method), outcome in final.items() if name == bed}
    tasks = sorted({task for method in own for run in runs[bed, method] for task in run.tasks})
    rows: list[list[Cell]] = []
    for method, outcome in own.items():
        measured = [run.measures() for run in runs[bed, method]]
        by_task = [_mean([values.get((task, "final")) for values in measured]) for task in tasks]
        others = [_mean([values.get((OVERALL, name)) for values in measured]) for name in ("finished", "length")]
        cost = spent[bed, method]
        estimate = Estimate(outcome.mean, outcome.standard_error)
        rows.append([method, len(outcome.values), estimate, *by_task, *others, cost.tokens / 1000, cost.seconds])
    columns = ["method", "seeds", "final avg@k", *tasks, "finished", "length", "tokens, thousands", "seconds"]
    title = bed[0].upper() + bed[1:].replace("_", " ")
    return Table(title, columns, rows, "Mean over seeds; final avg@k with standard error, and by task.")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
