"""Steps on a long-tailed mix of lengths: savings by dropped rows, cost of teachers, amount of padding."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from benchmarks.even_filter import dropping_evenly
from benchmarks.fireopd_runs import job, mix_arguments, recorded, seconds
from benchmarks.interleaving import Loop, Step, interleave_steps
from benchmarks.ratios import Ratio, Side
from benchmarks.settings import Settings
from benchmarks.workloads import TAIL, random_model, write_prompts
from fireopd.training.module import FiReOPDModule

FRACTIONS = (0.0, 0.2, 0.5)
"""Fractions of dropped rows."""
MODEL = "random models of four layers, recorded rollouts, log-normal lengths (sigma 1, longest 16 times the median)"
"""Workload of this module."""


class InputTokens(Callback):
    """Counts the input tokens of student and teachers; padding is token 0."""

    def __init__(self) -> None:
        """Start with empty counts."""
        self.counted: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    def on_train_start(self, trainer: Trainer, pl_module: FiReOPDModule) -> None:
        """Register the hooks that count."""
        models = [pl_module.student.model, *(teacher.scorer.model for teacher in pl_module.teachers.values())]
        for model in models:
            model.base_model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the tokens of one forward pass, with or without gradients."""
        tokens = args[0] if args else kwargs["input_ids"]
        counts = self.counted["update" if torch.is_grad_enabled() else "scoring"]
        counts[0] += tokens.numel()
        counts[1] += int((tokens != 0).sum())


class Mix:
    """Models and prompts of a long-tailed workload."""

    def __init__(self, settings: Settings, folder: Path, teachers: int) -> None:
        """Write a student and teachers with different weights."""
        self.settings, self.folder = settings, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.student = random_model(folder / "student", width=settings.width)
        self.teachers = {
            f"teacher{number}": random_model(folder / f"teacher{number}", width=settings.width, seed=1 + number)
            for number in range(teachers)
        }

    def loop(self, name: str, *more: str, teachers: int = 1, callbacks: Sequence[Callback] = (), rows: int = 0) -> Loop:
        """Return a run of FiRe-OPD as a loop; all loops of a mix have the same rollouts.

        Args:
            name: name of its folder.
            more: further settings.
            teachers: number of teachers, which share the rows evenly.
            callbacks: added to those of the run.
            rows: rows per step; 0 for the number of the settings.
        """
        settings, rows = self.settings, rows or self.settings.mix_rows
        chosen = dict(list(self.teachers.items())[:teachers])
        prompts = write_prompts(self.folder / f"{name}.jsonl", list(chosen), settings.prompts(rows))
        arguments = mix_arguments(self.student, chosen, prompts, *more, rows=rows, longest=TAIL * settings.mix_median)
        return job(arguments, self.folder / name, engine=recorded(settings), callbacks=callbacks)

    def interleave_steps(self, loops: Sequence[Loop]) -> list[list[Step]]:
        """Return the steps of interleaved loops."""
        with ExitStack() as stack:
            entered = [stack.enter_context(loop) for loop in loops]
            return interleave_steps(entered, warm_up=self.settings.warm_up, pairs=self.settings.pairs)


def side(what: str, steps: Sequence[Step], part: str) -> Side:
    """Return the seconds of a part of each step."""
    return Side(what, "s", tuple(seconds(step.parts, part) for step in steps))


def dropping(settings: Settings, folder: Path) -> Iterator[Ratio]:
    """Yield the time of the update with dropped rows over that without, for each fraction."""
    mix = Mix(settings, folder, teachers=1)
    whole, *others = mix.interleave_steps(
        [mix.loop(f"drop{fraction}", *dropping_evenly(fraction)) for fraction in FRACTIONS]
    )
    for fraction, steps in zip(FRACTIONS[1:], others, strict=True):
        name = f"update_drop{round(100 * fraction)}_over_drop0"
        above, below = f"update with {fraction:.0%} of the rows dropped", "update without dropped rows"
        details = {"share_of_tokens_kept": [kept_tokens(step) for step in steps]}
        notes = f"{MODEL}; rows are dropped evenly over the lengths"
        yield Ratio(name, side(above, steps, "update"), side(below, whole, "update"), notes, details)


def kept_tokens(step: Step) -> float:
    """Return the fraction of response tokens that the filter keeps in a step."""
    return step.parts["fire/keep_ratio"] * step.parts["rollout/length_kept"] / step.parts["rollout/length"]


def teachers(settings: Settings, folder: Path) -> Iterator[Ratio]:
    """Yield the time of scoring by four teachers, a quarter of the rows each, over that by one teacher."""
    mix = Mix(settings, folder, teachers=4)
    one, four = mix.interleave_steps([mix.loop("one"), mix.loop("four", teachers=4)])
    above, below = "scoring by four teachers, a quarter of the rows each", "scoring by one teacher"
    yield Ratio("score_4_teachers_over_1", side(above, four, "teacher"), side(below, one, "teacher"), MODEL)


def padding(settings: Settings, folder: Path) -> Iterator[Ratio]:
    """Yield the input tokens of the models over those without padding, in scoring and in the update."""
    mix, counter = Mix(settings, folder, teachers=1), InputTokens()
    found: dict[str, list[list[int]]] = {"scoring": [], "update": []}
    with mix.loop("counted", callbacks=[counter]) as loop:
        for _ in range(settings.pairs):
            counter.counted.clear()
            loop.step()
            for part, counts in found.items():
                counts.append(list(counter.counted[part]))
    for part, counts in found.items():
        computed, real = zip(*counts, strict=True)
        sides = (
            Side(f"input tokens of the models in {part}", "tokens", computed),
            Side("input tokens without padding", "tokens", real),
        )
        yield Ratio(f"padded_over_real_tokens_{part}", *sides, f"{MODEL}; counted by a forward hook")
