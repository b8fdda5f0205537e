"""Comparison of the loss gradients of methods on the same recorded rollouts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from fireopd.algorithm import fire_loss, loss_fractions
from fireopd.analysis.compare.method_statistics import Recording
from fireopd.method import Method
from fireopd.models.scorer import CausalScorer
from fireopd.models.token_budget import by_token_budget
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

__all__ = ["Alignment", "Alignments", "alignments", "gradient"]

CHUNK = 2**24
"""Elements of a gradient converted to float64 at a time."""


@dataclass(frozen=True)
class Alignment:
    """Gradients of two methods compared; means over the recordings."""

    first: str
    """Name of the first method."""
    second: str
    """Name of the second method."""
    cosine: float | None
    """Cosine similarity; None if one of the gradients is 0 on every recording."""
    norm_ratio: float | None
    """Norm of the first over that of the second; None likewise."""


@dataclass(frozen=True)
class Alignments:
    """Pairwise gradient alignment of methods at a student."""

    pairs: list[Alignment]
    """One for each pair of methods."""
    student_gap: float
    """Mean absolute difference between the student's log-probabilities and the recorded ones, nats per token; 0 for
    the recorded student."""


def alignments(
    scorer: CausalScorer,
    recordings: Sequence[Recording],
    methods: Mapping[str, Method],
    targets: Mapping[str, Sequence[Targets]],
    token_budget: int,
) -> Alignments:
    """Return the pairwise gradient alignment of methods.

    The gradients of all methods on one recording are held in CPU memory at the same time.

    Args:
        scorer: student.
        recordings: one or more recordings.
        methods: methods by name.
        targets: targets of each method for each recording.
        token_budget: tokens per forward pass of the student, padding included.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {pair: [] for pair in combinations(methods, 2)}
    gaps: list[Tensor] = []
    for place, recording in enumerate(recordings):
        batch = recording.batch
        gradients = {n: gradient(scorer, batch, targets[n][place], m, token_budget) for n, m in methods.items()}
        gaps.append(_student_gaps(scorer, batch, token_budget))
        for first, second in found:
            one, other = gradients[first], gradients[second]
            norms = math.sqrt(_dot(one, one)), math.sqrt(_dot(other, other))
            if all(norms):
                found[first, second].append((_dot(one, other) / norms[0] / norms[1], norms[0] / norms[1]))
    pairs = [Alignment(*pair, *_means(values)) for pair, values in found.items()]
    return Alignments(pairs, torch.cat(gaps).mean().item())


def gradient(scorer: CausalScorer, batch: ScoredBatch, targets: Targets, method: Method, token_budget: int) -> Tensor:
    """Return float32 [P]: the gradient of a method's loss with respect to all parameters of the student."""
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
    """Return micro-batches of the kept rows: int64 row indices, and the length of the longest of them."""
    places = torch.arange(batch.tokens.shape[1])
    ends = torch.where(batch.response_mask, places, 0).max(-1).values + 1
    rows = keep.nonzero().squeeze(-1)
    cuts = [rows[index] for index in by_token_budget(ends[rows], token_budget)]
    return [(index, int(ends[index].max())) for index in cuts]


def _dot(one: Tensor, other: Tensor) -> float:
    """Return the dot product of float32 [P] tensors, accumulated in float64; float32 has an error of about 1e-4."""
    chunks = zip(one.split(CHUNK), other.split(CHUNK), strict=True)
    return math.fsum((a.double() @ b.double()).item() for a, b in chunks)


def _means(values: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    cosine, ratio = torch.tensor(values, dtype=torch.float64).mean(0).tolist()
    return cosine, ratio
