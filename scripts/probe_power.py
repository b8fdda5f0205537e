r"""False alarms and power of the checks of weight syncs, by simulation: `python scripts/probe_power.py`.

A student in float32 takes AdamW steps at a learning rate of 1e-5, and an `HFEngine` in bfloat16 gets its weights after
each. Prints a Markdown table: alarms of correct syncs, skipped syncs that were found by the next probe, and engines
that keep a tensor, a layer or an output head from the start and were found by the trial. Intervals are
Wilson's, 95 %.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fireopd.distributed.fsdp import Sharding
from fireopd.engines import HFEngine
from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.models.weight_stream import WeightStream
from fireopd.training.weight_probe import Probe, allowed_gap
from fireopd.training.weight_trial import SyncTrial

CPU = torch.device("cpu")


class Keeping(HFEngine):
    """Engine that does not load some tensors."""

    kept: Callable[[str], bool] = staticmethod(lambda name: False)

    def load_weights(self, weights: Any, policy_version: int) -> None:
        """Load the others."""
        super().load_weights(((name, tensor) for name, tensor in weights if not self.kept(name)), policy_version)

    def untie(self) -> None:
        """Give the model a copy of its output head that no sync reaches."""
        assert self.model is not None
        self.model.lm_head.weight = torch.nn.Parameter(self.model.lm_head.weight.clone(), requires_grad=False)


def interval(found: int, of: int) -> str:
    """Return a rate with its interval of Wilson, in percent."""
    z, rate = 1.96, found / of
    center, half = rate + z**2 / (2 * of), z * math.sqrt(rate * (1 - rate) / of + (z / (2 * of)) ** 2)
    low, high = (max(0.0, min(1.0, (center + sign * half) / (1 + z**2 / of))) for sign in (-1, 1))
    return f"{found} of {of} | {100 * low:.2f} to {100 * high:.2f} %"


def make_run(model: str) -> Any:
    """Return an object with the attributes of a module that probe and trial read."""
    student = CausalScorer(load_causal_lm(model, "model", "float32"))
    plugin = SimpleNamespace(forward_context=nullcontext)
    trainer = SimpleNamespace(precision="32-true", strategy=SimpleNamespace(precision_plugin=plugin))
    run = SimpleNamespace(student=student, student_name=model, dtype_name="float32", sharding=Sharding(), device=CPU)
    run.trainer, run.policy_version, run.student_weights = trainer, 0, lambda: WeightStream(student.model)
    return run


def make_engine(model: str) -> Keeping:
    """Return an engine in bfloat16 with the weights of a model."""
    engine = Keeping(dtype="bfloat16")
    engine.setup(model, CPU)
    return engine


def sequences(vocabulary: int, length: int) -> Iterator[list[int]]:
    """Yield random token ids."""
    numbers = random.Random(0)
    while True:
        yield [numbers.randrange(2, vocabulary) for _ in range(length)]


def simulate_syncs(model: str, steps: int, rate: float, length: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, number and total of alarms of correct syncs, and of skipped syncs that were found."""
    run, engine = make_run(model), make_engine(model)
    optimizer = torch.optim.AdamW(run.student.parameters(), lr=rate)
    draws = sequences(run.student.model.config.vocab_size, length)
    engine.load_weights(run.student_weights(), 0)
    previous, false, skipped = Probe.of(run, engine, next(draws)), 0, 0
    for _ in range(steps):
        tokens = torch.tensor([next(draws)])
        advantages: Tensor = torch.randn(length)
        (run.student(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs[0] * advantages).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            skipped += Probe.of(run, engine, previous.tokens).staleness(previous) is not None
            engine.load_weights(run.student_weights(), 1)
            stale = Probe.of(run, engine, previous.tokens).staleness(previous)
            previous = Probe.of(run, engine, tokens[0].tolist())
            false += (stale or previous.disagreement(allowed_gap(run, engine))) is not None
    yield "correct sync: alarm", false, steps
    yield "skipped sync: found", skipped, steps


def simulate_trials(model: str, repeats: int, length: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, number and total of alarms of trials."""
    run = make_run(model)
    draws = sequences(run.student.model.config.vocab_size, length)
    names = list(run.student_weights().tensors)
    layers = sorted({name.split(".")[2] for name in names if ".layers." in name}, key=int)

    none = lambda name: False  # noqa: E731
    tied, untied = make_engine(model), make_engine(model)
    untied.untie()

    def found(kept: Callable[[str], bool], engine: Keeping = tied) -> bool:
        engine.kept = none  # type: ignore[method-assign]
        engine.load_weights(run.student_weights(), 0)
        engine.kept = kept  # type: ignore[method-assign]
        return SyncTrial(run, engine, next(draws)).first_alarm() is not None

    yield "correct trial: alarm", sum(found(none) for _ in range(10 * repeats)), 10 * repeats
    heads = sum(found(none, untied) for _ in range(10 * repeats))
    yield "stale copy of a tied head: found", heads, 10 * repeats
    one = sum(found(lambda own, name=name: own == name) for name in names for _ in range(repeats))  # type: ignore[misc]
    yield "one stale tensor: found", one, len(names) * repeats
    parts = [f".layers.{layer}." for layer in layers]
    whole = sum(found(lambda own, part=part: part in own) for part in parts for _ in range(3 * repeats))  # type: ignore[misc]
    yield "one stale layer: found", whole, 3 * repeats * len(layers)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny/student", help="model folder or embedded model")
    parser.add_argument("--syncs", type=int, default=2000, help="number of simulated syncs")
    parser.add_argument("--repeats", type=int, default=10, help="number of trials for each tensor")
    parser.add_argument("--rate", type=float, default=1e-5, help="learning rate of the student")
    parser.add_argument("--length", type=int, default=64, help="tokens of a probe")
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| case | number | interval |\n|---|---|---|")
    for results in (
        simulate_trials(options.model, options.repeats, options.length),
        simulate_syncs(options.model, options.syncs, options.rate, options.length),
    ):
        for name, count, total in results:
            print(f"| {name} | {interval(count, total)} |", flush=True)


if __name__ == "__main__":
    main()
