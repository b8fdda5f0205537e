"""Which way methods push a student: the gradient of each method's loss on the same recorded rollouts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from fireopd.algorithm import fire_loss, loss_fractions
from fireopd.analysis.compare.replays import Recording
from fireopd.method import Method
from fireopd.models.scorer import CausalScorer
from fireopd.models.token_budget import by_token_budget
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

PIECE = 2**24
"""Elements of a gradient that are turned into float64 at a time."""


@dataclass(frozen=True)
class Alignment:
    """The gradients of two methods, compared on each recording; means over the recordings."""

    first: str
    """Name of the one."""
    second: str
    """Name of the other."""
    cosine: float | None
    """Of the angle between them; none where one of them is always 0."""
    norm_ratio: float | None
    """Norm of the first over that of the second; likewise."""


@dataclass(frozen=True)
class Alignments:
    """How alike the gradients of methods are at a student."""

    pairs: list[Alignment]
    """Of each two methods."""
    student_gap: float
    """Mean absolute difference between the student's log-probabilities and those recorded, nats: 0 where the student is
    the one that was recorded."""


def alignments(
    scorer: CausalScorer,
    recordings: Sequence[Recording],
    methods: Mapping[str, Method],
    answers: Mapping[str, Sequence[Targets]],
    token_budget: int,
) -> Alignments:
    """Compare the gradients of methods. Those of all methods on one recording are held at a time, on the CPU.

    Args:
        scorer: the student.
        recordings: one or more.
        methods: by name.
        answers: the targets of each method for each recording.
        token_budget: tokens that go through the student at once, padding included.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {pair: [] for pair in combinations(methods, 2)}
    gaps: list[Tensor] = []
    for place, recording in enumerate(recordings):
        batch = recording.batch
        gradients = {n: gradient(scorer, batch, answers[n][place], m, token_budget) for n, m in methods.items()}
        gaps.append(_student_gaps(scorer, batch, token_budget))
        for first, second in found:
            one, other = gradients[first], gradients[second]
            norms = math.sqrt(_dot(one, one)), math.sqrt(_dot(other, other))
            if all(norms):
                found[first, second].append((_dot(one, other) / norms[0] / norms[1], norms[0] / norms[1]))
    pairs = [Alignment(*pair, *_means(values)) for pair, values in found.items()]
    return Alignments(pairs, torch.cat(gaps).mean().item())


def gradient(scorer: CausalScorer, batch: ScoredBatch, targets: Targets, method: Method, token_budget: int) -> Tensor:
    """Return float32 [P]: the gradient of a method's loss in all the student's parameters."""
    shares = loss_fractions(targets.mask, method.reduction)
    scorer.zero_grad()
    for rows, width in _cuts(batch, targets.keep, token_budget):
        logprobs, old = _logprobs(scorer, batch, rows, width), batch.student_logprobs[rows, :width]
        fire_loss(logprobs, old, targets.select(rows, width), shares[rows, :width], method.clip_ratio).backward()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in scorer.parameters()]
    flat = torch.cat([part.flatten().float().cpu() for part in parts])
    scorer.zero_grad()
    return flat


@torch.no_grad()
def _student_gaps(scorer: CausalScorer, batch: ScoredBatch, token_budget: int) -> Tensor:
    gaps = []
    for rows, width in _cuts(batch, batch.lengths > 0, token_budget):
        gap = _logprobs(scorer, batch, rows, width) - batch.student_logprobs[rows, :width]
        gaps.append(gap.abs()[batch.response_mask[rows, :width]])
    return torch.cat(gaps)


def _logprobs(scorer: CausalScorer, batch: ScoredBatch, rows: Tensor, width: int) -> Tensor:
    device = scorer.model.device
    tokens, mask = batch.tokens[rows, :width].to(device), batch.response_mask[rows, :width].to(device)
    return scorer(tokens, mask, temperature=batch.sampling.temperature).logprobs.float().cpu()


def _cuts(batch: ScoredBatch, keep: Tensor, token_budget: int) -> list[tuple[Tensor, int]]:
    """Return micro-batches of the rows to keep: int64 indices, and how many tokens the longest of them has."""
    places = torch.arange(batch.tokens.shape[1])
    ends = torch.where(batch.response_mask, places, 0).max(-1).values + 1
    rows = keep.nonzero().squeeze(-1)
    cuts = [rows[index] for index in by_token_budget(ends[rows], token_budget)]
    return [(index, int(ends[index].max())) for index in cuts]


def _dot(one: Tensor, other: Tensor) -> float:
    """Return the product of float32 [P] tensors, summed in float64 piece by piece: in float32 it is wrong by 1e-4."""
    pieces = zip(one.split(PIECE), other.split(PIECE), strict=True)
    return math.fsum((a.double() @ b.double()).item() for a, b in pieces)


def _means(values: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    cosine, ratio = torch.tensor(values, dtype=torch.float64).mean(0).tolist()
    return cosine, ratio
