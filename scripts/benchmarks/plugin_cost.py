"""Cost of filter, weighter and objective on a large batch, relative to a whole step on the same number of tokens.

Small machines cannot run that step. Its time is estimated as the time per response token of the embedded student's step
on many rows, times the tokens of the batch. This is a lower bound for larger models and for longer responses.
"""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.fireopd_runs import embedded_arguments, job, mix_arguments
from benchmarks.interleaving import timed
from benchmarks.ratios import Ratio, Side
from benchmarks.settings import Settings
from fireopd.distributed.gather import gather_batch
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.types import ScoredBatch
from fireopd.weighters import EntropyWeighter

SIGNALS = ("sampling_logprobs", "student_logprobs", "teacher_logprobs", "student_entropy", "teacher_entropy")
"""Signals that FiRe-OPD reads."""
MANY = 8
"""Factor on the rows of the embedded job, since the time per token is higher on few rows."""


def plugins(settings: Settings, folder: Path) -> Iterator[Ratio]:
    """Yield the share of strategies and gathering in a step, for the embedded student and optionally SmolLM2."""
    batch = large_batch(settings.plugin_rows, settings.plugin_length, settings.device)
    method = Method(TeacherLikelihoodFilter(drop_fraction=0.2, per_teacher=True), EntropyWeighter())

    def work() -> None:
        gathered, _ = gather_batch(batch)
        method.targets(gathered)

    work()
    costs = tuple(timed(work).seconds for _ in range(settings.pairs))
    above = Side(f"filter, weighter, objective, gather: {settings.plugin_rows} x {settings.plugin_length}", "s", costs)
    tokens = int(batch.lengths.sum())
    many = replace(settings, rows=MANY * settings.rows)
    yield share(
        "plugins_share_of_step", "the embedded student (0.6 M)", above, tokens, embedded_arguments(many), many, folder
    )
    if settings.smollm2 is not None:
        few = replace(settings, rows=settings.smollm2_rows)
        name, model = "plugins_share_of_step_smollm2", "SmolLM2 (135 M) with itself as the teacher"
        yield share(name, model, above, tokens, with_smollm2(few), few, folder)


def share(
    name: str, model: str, above: Side, tokens: int, arguments: list[str], settings: Settings, folder: Path
) -> Ratio:
    """Return the ratio to a step on this number of response tokens at the speed of a run."""
    rates = []
    with job(arguments, folder / name) as loop:
        for turn in range(settings.warm_up + settings.pairs):
            step = loop.step()
            if turn >= settings.warm_up:
                rates.append(step.seconds / (step.parts["rollout/length"] * settings.rows))
    below = Side(f"step on {tokens} response tokens at the speed of {model}", "s", tuple(tokens * r for r in rates))
    notes = "one process without communication; the time of the step is extrapolated from smaller ones"
    return Ratio(name, above, below, notes, {"step_seconds_per_token": statistics.median(rates)})


def with_smollm2(settings: Settings) -> list[str]:
    """Return the arguments of a run with SmolLM2 as student and teacher."""
    assert settings.smollm2 is not None
    model, prompts = str(settings.smollm2 / "model"), str(settings.smollm2 / "train.jsonl")
    arguments = mix_arguments(model, {"own": model}, prompts, rows=settings.rows, longest=settings.smollm2_length)
    return [*arguments, "--data.prompts.teacher", "own"]


def large_batch(rows: int, length: int, device: torch.device) -> ScoredBatch:
    """Return a batch of two teachers with the signals of FiRe-OPD; responses fill at least half of the width."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(length // 2, length + 1, (rows,), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    drawn = {name: torch.rand(mask.shape, generator=generator) for name in SIGNALS}
    signs = {name: -1.0 if name.endswith("logprobs") else 1.0 for name in SIGNALS}
    return ScoredBatch(
        tokens=torch.zeros(mask.shape, dtype=torch.int64, device=device),
        response_mask=mask.to(device),
        groups=torch.arange(rows, device=device),
        finished=torch.ones(rows, dtype=torch.bool, device=device),
        teachers=tuple(("math", "code")[row % 2] for row in range(rows)),
        signals={name: torch.where(mask, signs[name] * value, 0.0).to(device) for name, value in drawn.items()},
    )
