"""Time of whole training steps of fireopd, TRL and a naive loop, with the parts of a fireopd step."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from benchmarks.fireopd_runs import embedded_arguments, is_part, job
from benchmarks.interleaving import Boundary, Loop, Step, interleave_steps, ratio_of_steps
from benchmarks.naive_loop import NaiveLoop, Recipe
from benchmarks.ratios import LeftOut, Ratio, spread
from benchmarks.settings import Settings
from benchmarks.trl_trainer import missing, trl_loop
from fireopd.engines import HFEngine
from fireopd.models.loading import disable_dropout, load_causal_lm, load_tokenizer, stop_tokens
from fireopd.prompts import TinyPrompts
from fireopd.training.data import RolloutDataModule
from fireopd.types import Prompt

PARTS = ("rollout", "teacher", "student", "update", "sync")
"""Parts of a step with logged seconds."""
ONE_TEACHER = (
    *("--model.teachers", "{math: {class_path: HFTeacher, init_args: {path: tiny/math, token_budget: 2048}}}"),
    *("--data.prompts.teachers", "{math: math, code: math}"),
)
"""Overrides for one teacher of all rows."""
GKD = str(Path(__file__).parents[2] / "configs" / "methods" / "gkd_reverse.yaml")
"""Method file of TRL's loss."""


def against_trl(settings: Settings, folder: Path) -> Iterator[Ratio | LeftOut]:
    """Yield the time of TRL's step over that of fireopd: two teachers, one teacher, one teacher and TRL's loss."""
    reason = missing("trl_over_fireopd")
    if reason:
        yield reason
        return
    prompts = embedded_prompts(settings)
    ours = {
        "trl_over_fireopd": ("FiRe-OPD, two teachers", embedded_arguments(settings)),
        "trl_over_fireopd_one_teacher": ("FiRe-OPD, one teacher", embedded_arguments(settings, *ONE_TEACHER)),
        "trl_over_fireopd_same_loss": (
            "one teacher, reverse KL over the whole vocabulary as in TRL",
            embedded_arguments(settings, "--config", GKD, *ONE_TEACHER),
        ),
    }
    with ExitStack() as stack:
        loops = [trl_loop(settings, prompts, "tiny/math", folder / "trl")]
        loops += [job(arguments, folder / name) for name, (_, arguments) in ours.items()]
        theirs, *all_ours = interleave_steps([stack.enter_context(loop) for loop in loops], **counts(settings))
    for (name, (what, _)), steps in zip(ours.items(), all_ours, strict=True):
        notes = "TRL 1.16.0, one teacher, one micro-batch of all rows, float32, chunked divergence, no logging"
        yield ratio(name, "step of TRL's DistillationTrainer", theirs, f"step of fireopd: {what}", steps, notes)


def against_naive(settings: Settings, folder: Path) -> Iterator[Ratio]:
    """Yield the time of the naive loop's step over that of fireopd, with micro-batches of one row and of all rows."""
    with ExitStack() as stack:
        loops = [job(embedded_arguments(settings), folder / "ours")]
        loops += [naive_loop(settings, micro_batch=rows) for rows in (1, settings.rows)]
        ours, one, whole = interleave_steps([stack.enter_context(loop) for loop in loops], **counts(settings))
    what = "step of fireopd: FiRe-OPD, two teachers"
    notes = "same models, prompts and settings; every teacher scores every row, dropped rows are computed"
    yield ratio("naive_over_fireopd", "step of the naive loop, micro-batches of one", one, what, ours, notes)
    yield ratio("naive_whole_over_fireopd", "step of the naive loop, one micro-batch", whole, what, ours, notes)


def counts(settings: Settings) -> dict[str, int]:
    """Return the numbers of warm-up steps and pairs."""
    return {"warm_up": settings.warm_up, "pairs": settings.pairs}


def ratio(name: str, above: str, theirs: Sequence[Step], below: str, ours: Sequence[Step], notes: str) -> Ratio:
    """Return the ratio of the seconds of steps, with the parts of fireopd's steps."""
    found = ratio_of_steps(name, (above, theirs), (below, ours), notes)
    return replace(found, details=found.details | {"parts_of_ours": parts(ours)})


def parts(steps: Sequence[Step]) -> dict[str, dict[str, float]]:
    """Return the spread of the seconds of each part of the steps, and of the remainder."""
    split = {
        name: [sum(value for key, value in step.parts.items() if is_part(key, name)) for step in steps]
        for name in PARTS
    }
    split["other"] = [step.seconds - sum(split[name][place] for name in PARTS) for place, step in enumerate(steps)]
    shares = {
        name: statistics.median(v / s.seconds for v, s in zip(values, steps, strict=True))
        for name, values in split.items()
    }
    return {name: {**spread(values), "share": shares[name]} for name, values in split.items()}


def embedded_prompts(settings: Settings) -> list[Prompt]:
    """Return the tokenized prompts of the embedded job, in a different order."""
    number = settings.prompts(settings.rows)
    engine = HFEngine(settings.response_length)
    data = RolloutDataModule(
        prompts=TinyPrompts(num_training=number, num_validation=0), engine=engine, batch_size=1, seed=1
    )
    data.setup("fit")
    return data.training_prompts


def naive_loop(settings: Settings, micro_batch: int) -> Loop:
    """Return the naive loop on the embedded job."""

    def run(boundary: Boundary) -> None:
        models = {
            name: disable_dropout(load_causal_lm(f"tiny/{name}", "model", "float32", settings.device))
            for name in ("student", "math", "code")
        }
        stops = sorted(stop_tokens("tiny/student", "model", load_tokenizer("tiny/student", "model")))
        recipe = Recipe(micro_batch=micro_batch, response_length=settings.response_length)
        loop = NaiveLoop(models.pop("student"), models, recipe, stops)
        prompts = cycle(embedded_prompts(settings))
        while True:
            loop.step(list(islice(prompts, settings.rows)))
            boundary({})

    return Loop(run)
