"""Results of methods under several conditions: means, paired differences with simultaneous intervals, costs, regret."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from fireopd.analysis.bootstrap import PairedDifference, standard_error
from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.analysis.compare.run_results import Run, read_run
from fireopd.analysis.compare.simultaneous_intervals import half_width, simultaneous_difference

__all__ = ["Cost", "Outcome", "Regret", "costs", "missing_runs", "outcomes", "read_finished", "regrets"]

Place = tuple[str, str]
"""Condition and method."""


@dataclass(frozen=True)
class Outcome:
    """One measure of one method under one condition."""

    condition: str
    """Name of the condition."""
    method: str
    """Name of the method."""
    values: dict[int, float]
    """Values by seed."""
    mean: float
    """Mean over seeds."""
    standard_error: float | None
    """Standard error of the mean; None with a single seed."""
    half_width: float | None
    """Half the length of the simultaneous interval of the mean; None with a single seed."""
    difference: PairedDifference | None
    """Difference to the reference over common seeds; None for the reference itself."""
    alone: PairedDifference | None
    """The same difference with the narrower interval that holds with the confidence level by itself."""

    @property
    def mark(self) -> str:
        """▲ or ▼ if the simultaneous interval of the difference excludes 0, △ or ▽ if only its own does."""
        for difference, marks in ((self.difference, "▲▼"), (self.alone, "△▽")):
            if difference is not None and difference.low is not None and difference.high is not None:
                if difference.low > 0:
                    return marks[0]
                if difference.high < 0:
                    return marks[1]
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values, with the verdict."""
        verdict = {"verdict": self.difference.verdict} if self.difference else {}
        return asdict(self) | verdict


@dataclass(frozen=True)
class Cost:
    """Cost of a method, mean over its runs."""

    tokens: float
    """Response tokens in training, per run."""
    seconds: float
    """Duration of a run."""


@dataclass(frozen=True)
class Regret:
    """Distance of a method to the best method of each condition."""

    by_condition: dict[str, float]
    """Mean of the best method minus the own one, by condition."""
    complete: bool
    """True if the method has a result under every condition."""

    @property
    def mean(self) -> float:
        """Mean over conditions."""
        return fmean(self.by_condition.values())

    @property
    def worst(self) -> tuple[str, float]:
        """Condition with the largest regret, and the regret there."""
        return max(self.by_condition.items(), key=lambda pair: pair[1])


def read_finished(planned: Sequence[PlannedRun]) -> dict[Place, list[Run]]:
    """Return the finished runs by condition and method, in the order of the plan."""
    found: dict[Place, list[Run]] = {}
    for run in planned:
        if run.finished:
            place = run.condition, run.method
            found.setdefault(place, []).append(read_run(run.method, run.seed, run.folder))
    order = list(dict.fromkeys((run.condition, run.method) for run in planned))
    return {place: found[place] for place in order if place in found}


def missing_runs(planned: Sequence[PlannedRun], failed: Sequence[PlannedRun]) -> str:
    """Return the names of runs without a result as text; their number if they are many."""
    lacking = [run for run in planned if not run.finished]
    names = [f"{run.name} ({'failed' if run in failed else 'not run'})" for run in lacking]
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} runs, {len(failed)} of them failed"


def outcomes(
    runs: Mapping[Place, Sequence[Run]], task: str, measure: str, references: Mapping[Place, Place]
) -> dict[Place, Outcome]:
    """Return a measure under all conditions; the intervals of all differences hold together.

    Args:
        runs: runs by condition and method.
        task: task, or `all tasks`.
        measure: one of `fireopd.analysis.compare.run_results.MEASURES`.
        references: the place that each place is compared with, by place.
    """
    values: dict[Place, dict[int, float]] = {}
    for place, own in runs.items():
        measured = {run.seed: run.measures().get((task, measure)) for run in own}
        known = {seed: value for seed, value in measured.items() if value is not None}
        if known:
            values[place] = known
    compared = [place for place, other in references.items() if place in values and other in values and place != other]
    number = max(1, len(compared))
    found = {}
    for place, known in values.items():
        over_seeds = list(known.values())
        against = values[references[place]] if place in compared else {}
        found[place] = Outcome(
            *place,
            values=known,
            mean=fmean(over_seeds),
            standard_error=standard_error(over_seeds),
            half_width=half_width(over_seeds, len(values)),
            difference=simultaneous_difference(known, against, number),
            alone=simultaneous_difference(known, against, 1),
        )
    return found


def costs(runs: Mapping[Place, Sequence[Run]], planned: Sequence[PlannedRun]) -> dict[Place, Cost]:
    """Return the cost of each method under each condition."""
    rows = {(run.condition, run.method): _responses_per_step(run.settings) for run in planned}
    found = {}
    for place, own in runs.items():
        tokens = [sum(run.curves.get("rollout/length", {}).values()) * rows[place] for run in own]
        found[place] = Cost(fmean(tokens), fmean([run.seconds for run in own]))
    return found


def _responses_per_step(settings: Mapping[str, Any]) -> int:
    return int(settings.get("data.batch_size", 1)) * int(settings.get("data.responses_per_prompt", 1))


def regrets(found: Mapping[Place, Outcome]) -> dict[str, Regret]:
    """Return the regret of each method, from means over seeds."""
    best: dict[str, float] = {}
    for (condition, _), outcome in found.items():
        best[condition] = max(best.get(condition, -1.0), outcome.mean)
    regret: dict[str, dict[str, float]] = {}
    for (condition, method), outcome in found.items():
        regret.setdefault(method, {})[condition] = best[condition] - outcome.mean
    return {method: Regret(own, len(own) == len(best)) for method, own in regret.items()}
