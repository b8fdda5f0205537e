"""Decoding speed of `HFEngine` and of `model.generate` on one padded batch.

Prompts, number of rows, length limit and sampling distribution are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.interleaving import Step, ratio_of_steps, timed
from benchmarks.naive_loop import NaiveLoop, Recipe
from benchmarks.ratios import LeftOut, Ratio, interleave
from benchmarks.settings import Settings
from fireopd.engines import HFEngine
from fireopd.prompts import JSONLPrompts, PromptSource, TinyPrompts
from fireopd.training.data import RolloutDataModule
from fireopd.types import Prompt

TINY_LENGTH = 192
"""Maximum response length of the embedded student, tokens; most responses are much shorter."""


def decoding(settings: Settings, folder: Path) -> Iterator[Ratio | LeftOut]:
    """Yield the seconds per response token of `generate` over those of the engine, for each model."""
    for rows in settings.decoding_rows:
        source = TinyPrompts(num_training=rows * (settings.pairs + 1), num_validation=0)
        length = min(TINY_LENGTH, 3 * settings.response_length)
        yield against_generate("tiny/student", "tiny/student", source, rows, length, settings)
    name = "generate_over_hfengine_smollm2"
    if settings.smollm2 is None:
        yield LeftOut(name, "no model: run python scripts/prepare_smollm2.py OUT, then pass --smollm2 OUT")
        return
    source = JSONLPrompts(settings.smollm2 / "train.jsonl", teacher="none")
    model = str(settings.smollm2 / "model")
    yield against_generate("SmolLM2-135M", model, source, settings.smollm2_rows, settings.smollm2_length, settings)


def against_generate(label: str, model: str, source: PromptSource, rows: int, length: int, settings: Settings) -> Ratio:
    """Return the ratio for one model and number of rows; each pair has its own prompts."""
    engine = HFEngine(length)
    data = RolloutDataModule(model, source, engine, batch_size=1)
    data.setup("fit")
    engine.setup(model, settings.device)
    assert engine.model is not None
    generator = NaiveLoop(engine.model, {}, Recipe(response_length=length), sorted(engine.stops))
    written: dict[str, list[int]] = {"generate": [], "engine": []}
    turn = {"generate": 0, "engine": 0}

    def next_prompts(who: str) -> Sequence[Prompt]:
        start = turn[who] * rows % max(1, len(data.training_prompts) - rows + 1)
        turn[who] += 1
        return data.training_prompts[start : start + rows]

    def generate() -> Step:
        prompts, lengths = next_prompts("generate"), []
        step = timed(lambda: lengths.append(int(generator.roll_out(prompts)[2].sum())))
        written["generate"] += lengths
        return step.per(lengths[-1])

    def decode() -> Step:
        prompts, lengths = next_prompts("engine"), []
        seeds = range(1000 * turn["engine"], 1000 * turn["engine"] + rows)
        step = timed(lambda: lengths.append(sum(len(r.tokens) for r in engine.generate(prompts, seeds))))
        written["engine"] += lengths
        return step.per(lengths[-1])

    torch.manual_seed(0)
    generate(), decode()
    theirs, ours = interleave(settings.pairs, [generate, decode])
    what = f"{label}, {rows} rows, up to {length} tokens"
    name = f"generate_over_hfengine_{rows}" if label == model else "generate_over_hfengine_smollm2"
    ratio = ratio_of_steps(
        name,
        (f"model.generate, one padded batch: {what}", theirs),
        (f"HFEngine: {what}", ours),
        "same distribution, different samples; seconds per response token",
        "s per token",
    )
    mean = {who: sum(lengths) / len(lengths) / rows for who, lengths in written.items()}
    return replace(ratio, details=ratio.details | {"mean_length": mean})
