"""Metrics of an evaluation: by model and benchmark, averaged over benchmarks, and relative to the first model."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fireopd.analysis.bootstrap import BootstrapEstimate, average_of, bootstrap
from fireopd.analysis.evaluate.records import ProblemRecord
from fireopd.verifiers.pass_at_k import majority, pass_at_k

__all__ = ["AVERAGE", "Numbers", "Summary", "measure", "summarise"]

AVERAGE = "average of all"
"""Name of the average over benchmarks."""

Numbers = Mapping[str, BootstrapEstimate]
"""Metrics of one model by name: avg@n, pass@k, maj@n, finished, accuracy_given_finish, length."""


@dataclass(frozen=True)
class Summary:
    """Metrics of all models."""

    numbers: Mapping[str, Mapping[str, Numbers]]
    """Metrics by benchmark and model; with several benchmarks, their average comes last."""
    problems: Mapping[str, int]
    """Number of problems by benchmark."""
    control: str
    """Model that the others are compared with."""

    def differences(self, benchmark: str) -> dict[str, dict[str, BootstrapEstimate]]:
        """Return the differences of the other models to the control, by model and metric."""
        models = self.numbers[benchmark]
        control = models[self.control]
        return {
            model: {name: numbers[name].minus(control[name]) for name in numbers if name in control}
            for model, numbers in models.items()
            if model != self.control
        }

    def to_json(self) -> dict[str, Any]:
        """Return all metrics and differences as JSON values."""
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
    """Return the metrics of all models.

    Args:
        records: records by benchmark and model, with the same benchmarks and problems for all models.
        ks: values of k for pass@k.
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
    """Return the metrics of one model on one benchmark; accuracy metrics only with reference answers.

    Args:
        records: records of at least one problem.
        ks: values of k for pass@k, each at most the number of responses per problem.
        seed: seed of the bootstrap over problems; equal for all models of a comparison.
    """
    finished = [fmean([response.finished for response in record.responses]) for record in records]
    lengths = [fmean([response.tokens for response in record.responses]) for record in records]
    ones = [1.0] * len(records)
    columns = _accuracy_columns(records, ks) | {"finished": (finished, ones), "length": (lengths, ones)}
    found = {name: bootstrap(*column, seed=seed) for name, column in columns.items()}
    return {name: number for name, number in found.items() if number is not None}


def _accuracy_columns(
    records: Sequence[ProblemRecord], ks: Sequence[int]
) -> dict[str, tuple[list[float], list[float]]]:
    """Return numerators and denominators of the accuracy metrics, one for each problem."""
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
    """Return the average of each metric that all benchmarks have."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: average_of([part[name] for part in parts]) for name in names}


def _json(number: BootstrapEstimate) -> dict[str, Any]:
    low, high = number.interval or (None, None)
    error = {} if number.error is None else {"error": number.error}
    return {"value": number.value, **error, "low": low, "high": high}
