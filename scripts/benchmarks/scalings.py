"""How the cost of scoring and of the update grows: with tokens, vocabulary, teachers, dropped rows and processes.

Each point is the median of some steps of a run on recorded rollouts.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.jobs import StepEnd, job, on_mix, recorded, run, seconds
from benchmarks.settings import Settings
from benchmarks.turns import Step
from benchmarks.workloads import TAIL, random_model, write_prompts

COSTS = ("teacher", "student", "update")
"""Parts of a step whose law is sought; the first two are the scoring."""
TEACHERS = (1, 2, 4, 8)
FRACTIONS = (0.0, 0.1, 0.2, 0.35, 0.5)
VOCABULARIES = (64, 4096, 16384, 32768, 65536)
PROCESSES = (1, 2)

Point = Mapping[str, float]
"""Seconds by part of the step, of one size."""


def laws(settings: Settings, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each law by what it is a function of: the sizes, the seconds of each part, and a line through them."""
    bench = Bench(settings, folder)
    rows = [settings.mix_rows * (n + 1) // settings.scaling_points for n in range(settings.scaling_points)]
    yield "tokens", law("response tokens of a batch", [point for size in rows for point in bench.rows(size)])
    measures: dict[str, tuple[str, Sequence[float], Callable[[Any], Point]]] = {
        "vocabulary": ("outputs of the head", VOCABULARIES[: settings.scaling_points], bench.vocabulary),
        "teachers": ("teachers that share the rows", TEACHERS[: settings.scaling_points], bench.teachers),
        "drop_fraction": ("share of the rows dropped", FRACTIONS[: settings.scaling_points], bench.fraction),
        "processes": ("processes, gloo, one thread each", PROCESSES, bench.processes),
    }
    if settings.device.type != "cpu":
        del measures["processes"]
    for name, (what, sizes, measure) in measures.items():
        yield name, law(what, [(size, measure(size)) for size in sizes])


def law(what: str, points: Sequence[tuple[float, Point]]) -> dict[str, Any]:
    """Return sizes, the seconds of each part at each of them, and the line that fits those best.

    Args:
        what: the sizes are of.
        points: seconds of each part at some sizes.
    """
    xs, points = [float(size) for size, _ in points], [point for _, point in points]
    found = {name: [point[name] for point in points] for name in COSTS}
    found["scoring"] = [point["teacher"] + point["student"] for point in points]
    return {"what": what, "sizes": xs, "seconds": found, "lines": {name: line(xs, ys) for name, ys in found.items()}}


def line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any]:
    """Return the line of least squares through some points: slope, intercept, R^2 and residuals."""
    x, y = torch.tensor(xs, dtype=torch.float64), torch.tensor(ys, dtype=torch.float64)
    slope, intercept = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], -1), y[:, None]).solution[:, 0].tolist()
    residuals = y - (slope * x + intercept)
    spread = (y - y.mean()).square().sum()
    explained = 1 - (residuals.square().sum() / spread).item() if spread > 0 else 1.0
    return {"slope": slope, "intercept": intercept, "r_squared": explained, "residuals": residuals.tolist()}


class Bench:
    """Makes the runs that the points are from."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Write the models of the settings' width."""
        self.settings, self.folder = settings, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.student = random_model(folder / "student", width=settings.width)
        self.made = 0

    def rows(self, rows: int) -> list[tuple[float, Point]]:
        """Measure steps of so many rows; return the response tokens of each, and its seconds."""
        steps = self.steps(self.arguments(rows=rows))
        return [(step.parts["rollout/length"] * rows, medians([step])) for step in steps]

    def vocabulary(self, size: int) -> Point:
        """Measure models with a head of this size."""
        model = random_model(self.folder / f"vocabulary{size}", width=self.settings.width, vocabulary=size)
        return self.point(self.arguments(student=model))

    def teachers(self, number: int) -> Point:
        """Measure so many teachers, each with its share of the rows."""
        own = {
            f"teacher{n}": random_model(self.folder / f"teacher{n}", width=self.settings.width, seed=n)
            for n in range(number)
        }
        return self.point(self.arguments(teachers=own))

    def fraction(self, fraction: float) -> Point:
        """Measure with this share of the rows dropped."""
        return self.point(self.arguments("--model.trajectory_filter.drop_fraction", str(fraction)))

    def processes(self, number: int) -> Point:
        """Measure so many processes that share the rows."""
        several = ["--trainer.devices", str(number), "--trainer.strategy", "ddp"]
        arguments = [*self.arguments(*several), "--trainer.default_root_dir", str(self.folder / f"processes{number}")]
        sizes = [self.settings.mix_median, self.settings.warm_up + self.settings.pairs]
        launcher = [
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(number),
            "-m",
            "benchmarks.scalings",
        ]
        command = [sys.executable, "-m", *launcher, *map(str, sizes), "--", *arguments]
        place = Path(__file__).parents[1]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{number} processes ended with {done.returncode}: {done.stderr[-2000:]}")
        steps = json.loads(next(row for row in done.stdout.splitlines() if row.startswith("[")))
        return medians([Step(0.0, parts) for parts in steps[self.settings.warm_up :]])

    def arguments(
        self, *more: str, student: str = "", teachers: Mapping[str, str] | None = None, rows: int = 0
    ) -> list[str]:
        """Return the arguments of a run; the student is the teacher where no other is named."""
        settings, student = self.settings, student or self.student
        teachers, rows = teachers or {"teacher": student}, rows or settings.mix_rows
        self.made += 1
        number = rows * (settings.warm_up + settings.pairs + 1)
        prompts = write_prompts(self.folder / f"run{self.made}.jsonl", list(teachers), number)
        return on_mix(student, teachers, prompts, *more, rows=rows, longest=TAIL * settings.mix_median)

    def point(self, arguments: list[str]) -> Point:
        """Return the medians of the steps of a run."""
        return medians(self.steps(arguments))

    def steps(self, arguments: list[str]) -> list[Step]:
        """Return the steps of a run, those of the warm-up left out."""
        settings = self.settings
        with job(arguments, self.folder / f"run{self.made}", engine=recorded(settings)) as loop:
            return [loop.step() for _ in range(settings.warm_up + settings.pairs)][settings.warm_up :]


def medians(steps: Sequence[Step]) -> Point:
    """Return the median seconds of each part."""
    return {name: statistics.median(seconds(step.parts, name) for step in steps) for name in COSTS}


def main() -> None:
    """Make a run of several processes, started by torchrun, and print what each step logs as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("median", type=int, help="median length of a response, tokens")
    parser.add_argument("steps", type=int)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps: list[Mapping[str, float]] = []
    engine = recorded(Settings(), options.median)
    short = ["--trainer.limit_train_batches", str(options.steps)]
    cli = run([*options.arguments, *short], engine=engine, callbacks=[StepEnd(steps.append)])
    if cli.trainer.global_rank == 0:
        print(json.dumps(steps))


if __name__ == "__main__":
    main()
