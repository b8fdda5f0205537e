"""Batches to examine strategies on: every signal that there is, in plausible ranges, and the edges of what can happen.

Values are multiples of `GRAIN`, so that sums are exact and do not depend on the order of rows or on padding.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.signals import PER_TRAJECTORY, SIGNALS

VOCABULARY = 50
"""Token ids are smaller than this; entropies at most the logarithm of it."""
GRAIN = 1 / 64
"""What all values are multiples of."""
TEACHERS = ("math", "code", "law")
GROUP_SIZES = (1, 2, 3, 4)


def example_batch(
    rows: int = 13, *, seed: int = 0, policy_version: int = 0, longest: int = 9, loudness: float = 1.0
) -> ScoredBatch:
    """Return a random batch that holds every signal, 0 off the response mask.

    Args:
        rows: trajectories. They come in groups of one to four, each judged by one of three teachers.
        seed: of everything random.
        policy_version: optimizer steps that the sampling weights had seen.
        longest: tokens of the longest response; the shortest has one.
        loudness: share of its range that a signal takes up, up to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [GROUP_SIZES[i % len(GROUP_SIZES)] for i in range(rows)]
    members = [group for group, size in enumerate(sizes) for _ in range(size)][:rows]
    prompts = torch.randint(1, 4, (rows,), generator=generator)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator)
    lengths[rows // 2] = longest
    place = torch.arange(longest + 3)
    mask = (place >= prompts[:, None]) & (place < (prompts + lengths)[:, None])
    signals = {name: _signal(name, mask, members, loudness, generator) for name in SIGNALS}
    return ScoredBatch(
        tokens=torch.randint(VOCABULARY, mask.shape, generator=generator).where(
            place < (prompts + lengths)[:, None], 0
        ),
        response_mask=mask,
        groups=torch.tensor([100 - 7 * group for group in members]),
        finished=torch.arange(rows) % 5 != 3,
        teachers=tuple(TEACHERS[group % len(TEACHERS)] for group in members),
        signals=signals,
        policy_version=policy_version,
    )


def _signal(name: str, mask: Tensor, members: list[int], loudness: float, generator: torch.Generator) -> Tensor:
    """Return random values of a signal; groups of two rows and more have rewards of both kinds."""
    if name == "rewards":
        return torch.tensor([float(row % 2) for row in range(len(members))])
    low, high = _range(name)
    random = torch.rand(mask.shape[:1] if name in PER_TRAJECTORY else mask.shape, generator=generator)
    values = ((low + (high - low) * random) * loudness / GRAIN).round() * GRAIN
    return values if name in PER_TRAJECTORY else torch.where(mask, values, 0.0)


def _range(name: str) -> tuple[float, float]:
    """Return the smallest and the largest value of a signal: nats, or a share."""
    if name.endswith("_logprobs"):
        return -6.0, 0.0
    if name.endswith("_entropy"):
        return 0.0, math.floor(math.log(VOCABULARY) / GRAIN) * GRAIN
    return 0.0, 3.0 if name.endswith("_kl") else 1.0


def with_padding(batch: ScoredBatch, columns: int) -> ScoredBatch:
    """Return the batch with more columns of padding on the right."""

    def wider(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(len(values), columns)], -1)

    signals = {name: value if name in PER_TRAJECTORY else wider(value) for name, value in batch.signals.items()}
    mask, tokens = wider(batch.response_mask), wider(batch.tokens)
    return replace(batch, tokens=tokens, response_mask=mask, signals=signals)


def with_garbage(batch: ScoredBatch, value: float) -> ScoredBatch:
    """Return the batch with a value planted off the response mask of every signal, and other tokens in the padding.

    The tokens of the prompt stay: they are there to be read.
    """
    mask = batch.response_mask
    padding = (mask.flip(-1).cumsum(-1).flip(-1) == 0) & mask.any(-1, keepdim=True)
    signals = {
        name: signal if name in PER_TRAJECTORY else torch.where(mask, signal, value)
        for name, signal in batch.signals.items()
    }
    return replace(batch, tokens=torch.where(padding, VOCABULARY - 1, batch.tokens), signals=signals)


def with_signals(batch: ScoredBatch, change: Callable[[str, Tensor], Tensor]) -> ScoredBatch:
    """Return the batch with every signal changed on the response mask."""
    changed = {name: change(name, value) for name, value in batch.signals.items()}
    on_mask = {
        name: value if name in PER_TRAJECTORY else torch.where(batch.response_mask, value, 0.0)
        for name, value in changed.items()
    }
    return replace(batch, signals=on_mask)


def edges(policy_version: int) -> dict[str, ScoredBatch]:
    """Return what happens rarely, by what it is called; every strategy has an answer to it."""
    batch = example_batch(seed=2, policy_version=policy_version)
    nothing = torch.zeros_like(batch.response_mask)
    one_empty = torch.where(torch.arange(len(batch.finished))[:, None] == 1, False, batch.response_mask)

    def masked(mask: Tensor) -> ScoredBatch:
        return with_signals(replace(batch, response_mask=mask), lambda name, value: value)

    def constant(ending: str, constant: float) -> ScoredBatch:
        return with_signals(batch, lambda name, v: torch.full_like(v, constant) if name.endswith(ending) else v)

    return {
        "one trajectory of one token": example_batch(1, policy_version=policy_version, longest=1),
        "one trajectory": example_batch(1, policy_version=policy_version),
        "trajectories that are all equal": batch.select([2] * 4),
        "trajectories of one token each": example_batch(policy_version=policy_version, longest=1),
        "a teacher that equals the student": with_signals(batch, lambda name, v: _of_equals(batch, name, v)),
        "entropies that are all equal": constant("_entropy", 1.0),
        "entropies of 0": constant("_entropy", 0.0),
        "log-probabilities of 0": constant("_logprobs", 0.0),
        "teacher log-probabilities of -100 nats": constant("teacher_logprobs", -100.0),
        "student log-probabilities of -100 nats": constant("student_logprobs", -100.0),
        "rewards that are all 0": constant("rewards", 0.0),
        "rewards that are all 1": constant("rewards", 1.0),
        "an empty response among others": masked(one_empty),
        "no response token at all": masked(nothing),
    }


def _of_equals(batch: ScoredBatch, name: str, value: Tensor) -> Tensor:
    """Return what a signal is where student, teacher and base model are one model."""
    own = f"student_{name.partition('_')[2]}"
    if name.partition("_")[0] in ("teacher", "base", "sampling") and own in batch.signals:
        return batch.signals[own]
    if name.endswith("_kl"):
        return torch.zeros_like(value)
    return torch.ones_like(value) if name.endswith("_overlap") else value
