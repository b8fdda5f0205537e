"""Parity of the device with the CPU in float32: scores, gradients, targets and sampled tokens."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from fireopd.engines import HFEngine
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.prompts import TinyPrompts
from fireopd.training.data import RolloutDataModule
from fireopd.types import Prompt
from fireopd.weighters import EntropyWeighter
from gpu_checks import diagnostics
from gpu_checks.measure import attempt, differences, relative_difference
from gpu_checks.sizes import Row, Sizes

CPU = torch.device("cpu")
WIDTH = 48
"""Tokens of a row."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the difference of each quantity."""
    yield attempt("tiny/math: log-probabilities, nats", partial(scores, sizes, "logprobs"))
    yield attempt("tiny/math: entropies, nats", partial(scores, sizes, "entropy"))
    yield attempt("tiny/student: gradients", partial(gradients, sizes))
    for name in ("weight", "advantage"):
        yield attempt(f"FiRe-OPD on one batch: {name}", partial(targets, sizes, name))
    for temperature in (0.0, 1.0):
        yield attempt(f"HFEngine, temperature {temperature:g}", partial(responses, sizes, temperature))


def rows_of_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Return random tokens of the embedded vocabulary, and their mask."""
    tokens = torch.randint(4, 40, (16, WIDTH), generator=torch.Generator().manual_seed(0))
    return tokens, torch.arange(WIDTH) < torch.arange(WIDTH - 15, WIDTH + 1)[:, None]


def scores(sizes: Sizes, name: str) -> Row:
    """Return the differences of scores."""
    tokens, mask = rows_of_tokens()
    found = []
    for device in (sizes.device, CPU):
        scorer = CausalScorer(load_causal_lm("tiny/math", "model", "float32", device).eval())
        with torch.no_grad():
            found.append(getattr(scorer(tokens.to(device), mask.to(device), entropy=True), name)[mask.to(device)])
    return differences(*found)


def gradients(sizes: Sizes) -> Row:
    """Return the relative difference of the gradients of log-probabilities and entropies."""
    tokens, mask = rows_of_tokens()
    found = []
    for device in (sizes.device, CPU):
        scorer = CausalScorer(load_causal_lm("tiny/student", "model", "float32", device).eval())
        result = scorer(tokens.to(device), mask.to(device), entropy=True)
        assert result.entropy is not None
        (result.logprobs.sum() + 0.1 * result.entropy.sum()).backward()
        found.append([parameter.grad for parameter in scorer.parameters() if parameter.grad is not None])
    return {"relative difference": relative_difference(*map(iter, found))}


def targets(sizes: Sizes, name: str) -> Row:
    """Return the differences of weights or advantages on the same batch."""
    shape = (min(64, sizes.diagnostics_shape[0]), min(128, sizes.diagnostics_shape[1]))
    batch = diagnostics.long_tailed_batch(replace(sizes, device_name="cpu", diagnostics_shape=shape))
    method = Method(TeacherLikelihoodFilter(0.2), EntropyWeighter())
    moved = {key: values.to(sizes.device) for key, values in batch.signals.items()}
    fields = ("tokens", "response_mask", "groups", "finished")
    there = replace(batch, signals=moved, **{key: getattr(batch, key).to(sizes.device) for key in fields})
    return differences(*(getattr(method.targets(each), name) for each in (there, batch)))


def responses(sizes: Sizes, temperature: float) -> Row:
    """Return the share of equal responses, and the differences of the log-probabilities of equal ones."""
    prompts = embedded_prompts(min(64, sizes.embedded_rows))
    found = []
    for device in (sizes.device, CPU):
        engine = HFEngine(max_response_length=sizes.embedded_response, temperature=temperature)
        engine.setup("tiny/student", device)
        found.append(engine.generate(prompts, range(len(prompts))))
    equal = [(one, other) for one, other in zip(*found, strict=True) if one.tokens == other.tokens]
    row: Row = {"equal responses": len(equal) / len(prompts)}
    if equal:
        gaps = ([value for response in side for value in response.logprobs] for side in zip(*equal, strict=True))
        row |= differences(*map(torch.tensor, gaps))
    return row


def embedded_prompts(number: int) -> list[Prompt]:
    """Return tokenized prompts of the embedded tasks."""
    source = TinyPrompts(num_training=number, num_validation=0)
    data = RolloutDataModule(prompts=source, engine=HFEngine(max_response_length=64), batch_size=1, seed=1)
    data.setup("fit")
    return data.training_prompts
