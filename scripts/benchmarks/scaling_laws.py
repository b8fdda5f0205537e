"""Scaling laws: cost of scoring and update by number of tokens, vocabulary, teachers, dropped rows and processes.

The sizes of a law are interleaved step by step on the same recorded rollouts. A point is the median over steps, except
for the number of tokens, where each step is a point.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.even_filter import dropping_evenly
from benchmarks.fireopd_runs import job, mix_arguments, recorded, seconds
from benchmarks.interleaving import Loop, Step, interleave_steps
from benchmarks.settings import Settings
from benchmarks.subprocess_runs import run_in_subprocess
from benchmarks.workloads import TAIL, random_model, write_prompts

COSTS = ("teacher", "student", "update")
"""Parts of a step; the first two are the scoring."""
TEACHERS = (1, 2, 4, 8)
"""Numbers of teachers, which share the rows."""
FRACTIONS = (0.0, 0.1, 0.2, 0.35, 0.5)
"""Fractions of dropped rows."""
VOCABULARIES = (64, 4096, 16384, 32768, 65536)
"""Vocabulary sizes."""
PROCESSES = (1, 2)
"""Numbers of processes, which share the rows."""

Point = tuple[float, Mapping[str, float]]
"""Size, and seconds of each part of the step."""


def laws(settings: Settings, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each law with its variable: sizes, seconds of each part, and fitted lines."""
    bench, number = Bench(settings, folder), settings.scaling_points
    rows = [settings.mix_rows * (n + 1) // number for n in range(number)]
    steps = zip(rows, bench.interleave_steps([bench.loop(rows=size) for size in rows]), strict=True)
    each = [(size * step.parts["rollout/length"], medians([step])) for size, own in steps for step in own]
    yield "tokens", law("response tokens per batch", each)
    sizes = VOCABULARIES[:number]
    yield "vocabulary", law("vocabulary size", bench.points(sizes, [bench.with_head(size) for size in sizes]))
    counts = TEACHERS[:number]
    several = [bench.loop(teachers=bench.models("teacher", count)) for count in counts]
    yield "teachers", law("number of teachers", bench.points(counts, several))
    fractions = FRACTIONS[:number]
    dropping = [bench.loop(*dropping_evenly(share)) for share in fractions]
    yield "drop_fraction", law("fraction of dropped rows", bench.points(fractions, dropping))
    if settings.device.type == "cpu":
        shared = [(size, bench.processes(size)) for size in PROCESSES]
        yield "processes", law("processes (gloo, one thread each)", shared)


def law(what: str, points: Sequence[Point]) -> dict[str, Any]:
    """Return sizes, seconds of each part at each size, and least-squares lines."""
    sizes = [float(size) for size, _ in points]
    found = {name: [point[name] for _, point in points] for name in COSTS}
    found["scoring"] = [point["teacher"] + point["student"] for _, point in points]
    return {"what": what, "sizes": sizes, "seconds": found, "lines": {n: line(sizes, ys) for n, ys in found.items()}}


def line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any]:
    """Return the least-squares line through points: slope, intercept, R^2 and residuals."""
    x, y = torch.tensor(xs, dtype=torch.float64), torch.tensor(ys, dtype=torch.float64)
    slope, intercept = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], -1), y[:, None]).solution[:, 0].tolist()
    residuals = y - (slope * x + intercept)
    spread = (y - y.mean()).square().sum()
    explained = 1 - (residuals.square().sum() / spread).item() if spread > 0 else 1.0
    return {"slope": slope, "intercept": intercept, "r_squared": explained, "residuals": residuals.tolist()}


class Bench:
    """Runs of the scaling laws."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Write a model with the width of the settings."""
        self.settings, self.folder, self.made = settings, folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        self.student = random_model(folder / "student", width=settings.width)

    def models(self, name: str, number: int) -> dict[str, str]:
        """Return paths of models by name, each with different weights."""
        names = [f"{name}{place}" for place in range(number)]
        return {own: random_model(self.folder / own, width=self.settings.width, seed=n) for n, own in enumerate(names)}

    def with_head(self, size: int) -> Loop:
        """Return a run of models with this vocabulary size."""
        model = random_model(self.folder / f"head{size}", width=self.settings.width, vocabulary=size)
        return self.loop(student=model)

    def loop(self, *more: str, **models: Any) -> Loop:
        """Return a run as a loop; keyword arguments as in `arguments`."""
        arguments = self.arguments(*more, **models)
        return job(arguments, self.folder / f"run{self.made}", engine=recorded(self.settings))

    def arguments(
        self, *more: str, student: str = "", teachers: Mapping[str, str] | None = None, rows: int = 0
    ) -> list[str]:
        """Return the arguments of a run; by default, the student is the teacher."""
        settings, student = self.settings, student or self.student
        teachers, rows = teachers or {"teacher": student}, rows or settings.mix_rows
        self.made += 1
        prompts = write_prompts(self.folder / f"run{self.made}.jsonl", list(teachers), settings.prompts(rows))
        return mix_arguments(student, teachers, prompts, *more, rows=rows, longest=TAIL * settings.mix_median)

    def points(self, sizes: Sequence[float], loops: Sequence[Loop]) -> list[Point]:
        """Return the medians over the steps of interleaved runs."""
        return [(size, medians(steps)) for size, steps in zip(sizes, self.interleave_steps(loops), strict=True)]

    def interleave_steps(self, loops: Sequence[Loop]) -> list[list[Step]]:
        """Return the steps of interleaved runs."""
        with ExitStack() as stack:
            entered = [stack.enter_context(loop) for loop in loops]
            return interleave_steps(entered, warm_up=self.settings.warm_up, pairs=self.settings.pairs)

    def processes(self, number: int) -> dict[str, float]:
        """Return the medians over the steps of a run with several processes."""
        several = ["--trainer.devices", str(number), "--trainer.strategy", "ddp" if number > 1 else "auto"]
        place = ["--trainer.default_root_dir", str(self.folder / f"processes{number}")]
        settings, steps = self.settings, self.settings.warm_up + self.settings.pairs
        arguments = self.arguments(*several, *place)
        output = run_in_subprocess(
            arguments, steps=steps, processes=number, median=settings.mix_median, settings=settings
        )
        return medians([Step(0.0, parts) for parts in output["steps"][settings.warm_up :]])


def medians(steps: Sequence[Step]) -> dict[str, float]:
    """Return the median seconds of each part."""
    return {name: statistics.median(seconds(step.parts, name) for step in steps) for name in COSTS}
