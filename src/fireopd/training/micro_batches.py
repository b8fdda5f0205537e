"""Cutting a rollout batch: into updates, and those into micro-batches by a budget of tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.models.distributions import DistributionComparison
from fireopd.models.token_budget import by_token_budget
from fireopd.progress import track
from fireopd.types import ScoredBatch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that go through the student together."""

    tokens: Tensor
    """int64 [b, l]. Prompt and response token ids, without needless padding."""
    response_mask: Tensor
    """bool [b, l]. True on tokens that the student sampled."""
    rows: Tensor
    """int64 [b]. Their places in the global batch."""
    shares: Tensor
    """float64 [b, l]. Share of each token in the loss of the whole update."""
    comparison: DistributionComparison | None
    """What to measure of student and teachers, for a direct objective."""


def updates(keep: Tensor, *, mini_batches: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Yield the kept rows of each update of a rollout batch.

    Args:
        keep: bool [N]. Kept rows of the global batch.
        mini_batches: updates in a pass.
        epochs: passes; each deals the rows anew.
        seed: decides how; the same on every rank.

    Returns:
        int64 indices of global rows; none if nothing is kept.
    """
    kept = keep.nonzero().squeeze(-1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        dealt = kept[torch.randperm(len(kept), generator=generator).to(kept.device)]
        yield from (part for part in dealt.tensor_split(mini_batches) if len(part))


def deal(rows: Tensor, tokens: Tensor, ranks: int) -> list[Tensor]:
    """Share the rows of an update out over ranks, so that all have about the same number of tokens.

    The longest goes first, each to the rank that has least to do: a filter drops more of one rank than of another, and
    lengths have a long tail.

    Args:
        rows: int64. Global rows of the update.
        tokens: int64 [N]. Of each row of the global batch, padding left out.
        ranks: number of processes.

    Returns:
        int64 indices of global rows for each rank, the same on all.
    """
    hands: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    counts = tokens[rows].tolist()
    for place, row in sorted(enumerate(rows.tolist()), key=lambda pair: -counts[pair[0]]):
        rank = loads.index(min(loads))
        hands[rank].append(row)
        loads[rank] += counts[place]
    return [rows.new_tensor(hand) for hand in hands]


def micro_batches(
    batch: ScoredBatch,
    shares: Tensor,
    own: slice,
    rows: Tensor,
    budget: int,
    comparison: DistributionComparison | None = None,
) -> Iterator[MicroBatch]:
    """Yield this rank's micro-batches of an update.

    Every rank holds the whole batch and takes an equal part of the work; only where distributions are compared, whose
    hidden states stay where they are, it takes its own rows. Every rank yields the same number, as sharded models need
    it; a rank that runs out yields a row without any share.

    Args:
        batch: N rows of all ranks.
        shares: float64 [N, L], from `loss_fractions`; 0 for rows that are not in the update.
        own: which of the N rows are this rank's.
        rows: int64. Global rows of the update.
        budget: tokens a micro-batch, padding included.
        comparison: of this rank's rows, for a direct objective.
    """
    tokens = batch.spans
    if comparison is None:
        taken, spare = deal(rows, tokens, collectives.world_size())[collectives.rank()], tokens.argmin()
    else:
        taken, spare = rows[(rows >= own.start) & (rows < own.stop)], own.start + tokens[own].argmin()
    cuts = [taken[index] for index in by_token_budget(tokens[taken], budget)]
    for number in track(range(collectives.all_reduce_max(len(cuts), rows.device)), "update"):
        some = cuts[number] if number < len(cuts) else spare[None]
        width = max(1, int(tokens[some].max()))
        yield MicroBatch(
            tokens=batch.tokens[some, :width],
            response_mask=batch.response_mask[some, :width],
            rows=some,
            shares=shares[some, :width] * (number < len(cuts)),
            comparison=comparison.select(some - own.start) if comparison else None,
        )
