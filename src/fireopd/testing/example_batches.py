"""Test batches for strategies: random batches with all signals in plausible ranges, and edge cases.

Values are multiples of `GRAIN`, so that sums are exact, whatever the order of rows and the padding.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.signals import PER_TRAJECTORY, SIGNALS

__all__ = ["VOCABULARY", "edge_cases", "example_batch", "with_garbage", "with_padding", "with_signals"]

VOCABULARY = 50
"""Size of the vocabulary; entropies are at most its logarithm."""
GRAIN = 1 / 64
"""Unit of all values."""
TEACHERS = ("math", "code", "law")
GROUP_SIZES = (1, 2, 3, 4)


def example_batch(
    rows: int = 13, *, seed: int = 0, policy_version: int = 0, longest: int = 9, scale: float = 1.0
) -> ScoredBatch:
    """Return a random batch with all signals, 0 off the response mask.

    Args:
        rows: number of trajectories, in groups of one to four, each scored by one of three teachers.
        seed: seed of all random values.
        policy_version: optimizer steps of the weights that sampled the responses.
        longest: length of the longest response, tokens; the shortest has one token.
        scale: factor of the ranges of the signals, in (0, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [GROUP_SIZES[i % len(GROUP_SIZES)] for i in range(rows)]
    members = [group for group, size in enumerate(sizes) for _ in range(size)][:rows]
    prompts = torch.randint(1, 4, (rows,), generator=generator)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator)
    lengths[rows // 2] = longest
    position = torch.arange(longest + 3)
    mask = (position >= prompts[:, None]) & (position < (prompts + lengths)[:, None])
    signals = {name: _signal(name, mask, members, scale, generator) for name in SIGNALS}
    return ScoredBatch(
        tokens=torch.randint(VOCABULARY, mask.shape, generator=generator).where(
            position < (prompts + lengths)[:, None], 0
        ),
        response_mask=mask,
        groups=torch.tensor([100 - 7 * group for group in members]),
        finished=torch.arange(rows) % 5 != 3,
        teachers=tuple(TEACHERS[group % len(TEACHERS)] for group in members),
        signals=signals,
        policy_version=policy_version,
    )


def _signal(name: str, mask: Tensor, members: list[int], scale: float, generator: torch.Generator) -> Tensor:
    """Return random values of a signal; groups of two or more rows have rewards of 0 and of 1."""
    if name == "rewards":
        return torch.tensor([float(row % 2) for row in range(len(members))])
    low, high = _range(name)
    random = torch.rand(mask.shape[:1] if name in PER_TRAJECTORY else mask.shape, generator=generator)
    values = ((low + (high - low) * random) * scale / GRAIN).round() * GRAIN
    return values if name in PER_TRAJECTORY else torch.where(mask, values, 0.0)


def _range(name: str) -> tuple[float, float]:
    """Return the range of a signal: nats, or a fraction."""
    if name.endswith("_logprobs"):
        return -6.0, 0.0
    if name.endswith("_entropy"):
        return 0.0, math.floor(math.log(VOCABULARY) / GRAIN) * GRAIN
    return 0.0, 3.0 if name.endswith("_kl") else 1.0


def with_padding(batch: ScoredBatch, columns: int) -> ScoredBatch:
    """Return the batch with additional columns of padding on the right."""

    def wider(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(len(values), columns)], -1)

    signals = {name: value if name in PER_TRAJECTORY else wider(value) for name, value in batch.signals.items()}
    mask, tokens = wider(batch.response_mask), wider(batch.tokens)
    return replace(batch, tokens=tokens, response_mask=mask, signals=signals)


def with_garbage(batch: ScoredBatch, value: float) -> ScoredBatch:
    """Return the batch with `value` off the response mask of every signal, and other tokens in the padding.

    Prompt tokens are unchanged, since strategies may read them.
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


def edge_cases(policy_version: int) -> dict[str, ScoredBatch]:
    """Return edge cases by description; every strategy must have a valid answer for each."""
    batch = example_batch(seed=2, policy_version=policy_version)
    empty = torch.zeros_like(batch.response_mask)
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
        "no response token at all": masked(empty),
    }


def _of_equals(batch: ScoredBatch, name: str, value: Tensor) -> Tensor:
    """Return the values of a signal if student, teacher and base model are the same model."""
    own = f"student_{name.partition('_')[2]}"
    if name.partition("_")[0] in ("teacher", "base", "sampling") and own in batch.signals:
        return batch.signals[own]
    if name.endswith("_kl"):
        return torch.zeros_like(value)
    return torch.ones_like(value) if name.endswith("_overlap") else value
