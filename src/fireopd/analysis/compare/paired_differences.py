"""Results of a comparison: each measure of each method, and its paired difference to the control."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from fireopd.analysis.bootstrap import PairedDifference, paired_bootstrap, standard_error
from fireopd.analysis.compare.run_results import MEASURES, OVERALL, Curve, Run

__all__ = ["Band", "Result", "band", "results", "smoothed"]


@dataclass(frozen=True)
class Result:
    """One measure of one method on one task."""

    task: str
    """Task, or `all tasks`."""
    measure: str
    """One of `fireopd.analysis.compare.run_results.MEASURES`."""
    method: str
    """Name of the method."""
    values: dict[int, float]
    """Values by seed; seeds with an undefined value are left out."""
    mean: float
    """Mean over seeds."""
    standard_error: float | None
    """Standard error of the mean; None with a single seed."""
    difference: PairedDifference | None
    """Difference to the control over common seeds; None for the control and without a common seed."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, with the verdict."""
        verdict = {"verdict": self.difference.verdict} if self.difference else {}
        return asdict(self) | verdict


@dataclass(frozen=True)
class Band:
    """Mean and range of a curve over several seeds, at their common steps."""

    steps: list[int]
    """Optimizer steps."""
    mean: list[float]
    """Mean over seeds."""
    lowest: list[float]
    """Minimum over seeds."""
    highest: list[float]
    """Maximum over seeds."""


def results(runs: Sequence[Run], control: str) -> list[Result]:
    """Return the results of all runs, ordered by task, measure and method."""
    table: dict[tuple[str, str, str], dict[int, float]] = {}
    for run in runs:
        for (task, measure), value in run.measures().items():
            table.setdefault((task, measure, run.method), {})[run.seed] = value
    tasks = [OVERALL, *sorted({task for task, _, _ in table} - {OVERALL})]
    methods = list(dict.fromkeys(run.method for run in runs))
    places = [(task, measure, method) for task in tasks for measure in MEASURES for method in methods]
    found = []
    for task, measure, method in (place for place in places if place in table):
        values = table[task, measure, method]
        against = table.get((task, measure, control), {})
        difference = None if method == control else paired_bootstrap(values, against)
        over_seeds = list(values.values())
        centre, error = fmean(over_seeds), standard_error(over_seeds)
        found.append(Result(task, measure, method, values, centre, error, difference))
    return found


def band(runs: Sequence[Run], tag: str, width: int = 1) -> Band | None:
    """Return mean and range of a curve smoothed over `width` points; None if one of the runs lacks the tag."""
    curves = [run.curves.get(tag, {}) for run in runs]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if not steps:
        return None
    smooth = [smoothed({step: curve[step] for step in steps}, width) for curve in curves]
    columns = [[curve[step] for curve in smooth] for step in steps]
    return Band(steps, [fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns])


def smoothed(curve: Curve, width: int) -> Curve:
    """Return the centred running mean over at most `width` points; windows shrink towards both ends."""
    steps, half = sorted(curve), width // 2
    around = {step: min(half, place, len(steps) - 1 - place) for place, step in enumerate(steps)}
    places = enumerate(steps)
    return {s: fmean([curve[t] for t in steps[place - around[s] : place + around[s] + 1]]) for place, s in places}
