"""The numbers of an evaluation: each model on each benchmark, on the average of all, and against the first model."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fireopd.analysis.bootstrap import BootstrapEstimate, average_of, bootstrap
from fireopd.analysis.evaluate.records import ProblemRecord
from fireopd.verifiers.pass_at_k import majority, pass_at_k

AVERAGE = "average of all"
"""The name under which the average over benchmarks stands."""

Numbers = Mapping[str, BootstrapEstimate]
"""Numbers of one model, by name: avg@n, pass@k, maj@n, finished, accuracy_given_finish, length."""


@dataclass(frozen=True)
class Summary:
    """What was found."""

    numbers: Mapping[str, Mapping[str, Numbers]]
    """By benchmark and model, the average over the benchmarks last if there are several."""
    problems: Mapping[str, int]
    """How many each benchmark has."""
    control: str
    """The model that others are compared with."""

    def differences(self, benchmark: str) -> dict[str, dict[str, BootstrapEstimate]]:
        """Return by how much the other models differ from the control, by model and number."""
        models = self.numbers[benchmark]
        control = models[self.control]
        return {
            model: {name: numbers[name].minus(control[name]) for name in numbers if name in control}
            for model, numbers in models.items()
            if model != self.control
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        found = {
            benchmark: {
                "problems": self.problems[benchmark],
                "models": {model: {k: _json(v) for k, v in numbers.items()} for model, numbers in models.items()},
                "differences": {
                    model: {name: _json(found) | {"verdict": found.verdict} for name, found in numbers.items()}
                    for model, numbers in self.differences(benchmark).items()
                },
            }
            for benchmark, models in self.numbers.items()
        }
        return {"control": self.control, "benchmarks": found}


def summarise(records: Mapping[str, Mapping[str, Sequence[ProblemRecord]]], ks: Sequence[int]) -> Summary:
    """Return the numbers of all models.

    Args:
        records: by benchmark and model, the same benchmarks and problems for all models.
        ks: of pass@k.
    """
    numbers: dict[str, Mapping[str, Numbers]] = {
        benchmark: {model: measure(rows, ks, seed=zlib.crc32(benchmark.encode())) for model, rows in models.items()}
        for benchmark, models in records.items()
    }
    problems = {benchmark: len(next(iter(models.values()))) for benchmark, models in records.items()}
    models = list(next(iter(records.values())))
    if len(records) > 1:
        numbers[AVERAGE] = {model: _averages([numbers[benchmark][model] for benchmark in records]) for model in models}
        problems[AVERAGE] = sum(problems.values())
    return Summary(numbers, problems, models[0])


def measure(records: Sequence[ProblemRecord], ks: Sequence[int], seed: int) -> Numbers:
    """Return the numbers of one model on one benchmark; those about right answers only where there are answers.

    Args:
        records: of at least one problem.
        ks: of pass@k, each at most the number of responses.
        seed: of the bootstrap over problems; equal for models that are to be compared.
    """
    finished = [fmean([response.finished for response in record.responses]) for record in records]
    lengths = [fmean([response.tokens for response in record.responses]) for record in records]
    ones = [1.0] * len(records)
    columns = _of_rewards(records, ks) | {"finished": (finished, ones), "length": (lengths, ones)}
    found = {name: bootstrap(*column, seed=seed) for name, column in columns.items()}
    return {name: number for name, number in found.items() if number is not None}


def _of_rewards(records: Sequence[ProblemRecord], ks: Sequence[int]) -> dict[str, tuple[list[float], list[float]]]:
    """Return numerators and denominators of the numbers about right answers, for each problem."""
    rewards = [[r.reward for r in record.responses if r.reward is not None] for record in records]
    if not all(rewards):
        return {}
    n, ones = len(rewards[0]), [1.0] * len(records)
    votes = [[response.final_answer for response in record.responses] for record in records]
    finished = [[float(response.finished) for response in record.responses] for record in records]
    columns = {f"avg@{n}": ([fmean(own) for own in rewards], ones)}
    columns |= {f"pass@{k}": ([pass_at_k(own, k) for own in rewards], ones) for k in ks}
    if n > 1:
        columns[f"maj@{n}"] = ([majority(*both) for both in zip(rewards, votes, strict=True)], ones)
    right = [sum(r * f for r, f in zip(*both, strict=True)) for both in zip(rewards, finished, strict=True)]
    columns["accuracy_given_finish"] = (right, [sum(own) for own in finished])
    return columns


def _averages(parts: Sequence[Numbers]) -> Numbers:
    """Return the averages of what all benchmarks have."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: average_of([part[name] for part in parts]) for name in names}


def _json(number: BootstrapEstimate) -> dict[str, Any]:
    low, high = number.interval or (None, None)
    error = {} if number.error is None else {"error": number.error}
    return {"value": number.value, **error, "low": low, "high": high}
