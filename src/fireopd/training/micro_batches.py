"""Updates of a rollout batch, and their micro-batches under a token budget."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.models.distributions import DistributionComparison
from fireopd.models.token_budget import by_token_budget
from fireopd.progress import track
from fireopd.types import ScoredBatch

__all__ = ["MicroBatch", "balance_over_ranks", "micro_batches", "updates"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of one forward and backward pass of the student."""

    tokens: Tensor
    """int64 [b, l]. Prompt and response token ids, padded to the longest of these rows."""
    response_mask: Tensor
    """bool [b, l]. True on tokens that the student sampled."""
    rows: Tensor
    """int64 [b]. Indices into the global batch."""
    fractions: Tensor
    """float64 [b, l]. Fraction of the update's loss for each token."""
    comparison: DistributionComparison | None
    """Divergence of student and teachers to compute, for a direct objective."""


def updates(keep: Tensor, mini_batches: int, epochs: int, *, seed: int) -> Iterator[Tensor]:
    """Yield the kept rows of each update of a rollout batch.

    Args:
        keep: bool [N]. Kept rows of the global batch.
        mini_batches: updates of a pass.
        epochs: passes; each shuffles the rows anew.
        seed: seed of the shuffle, the same on every rank.

    Yields:
        int64 indices of global rows; no update if no row is kept.
    """
    kept = keep.nonzero().squeeze(-1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = kept[torch.randperm(len(kept), generator=generator).to(kept.device)]
        yield from (part for part in shuffled.tensor_split(mini_batches) if len(part))


def balance_over_ranks(rows: Tensor, tokens: Tensor, ranks: int) -> list[Tensor]:
    """Assign the rows of an update to ranks so that all ranks have about the same number of tokens.

    Rows go to the rank with the fewest tokens, longest row first. A filter drops different numbers of rows on different
    ranks, and lengths have a long tail.

    Args:
        rows: int64. Global rows of the update.
        tokens: int64 [N]. Tokens of each row of the global batch, padding excluded.
        ranks: number of processes.

    Returns:
        int64 indices of global rows for each rank, the same on all ranks.
    """
    parts: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    counts = tokens[rows].tolist()
    for place, row in sorted(enumerate(rows.tolist()), key=lambda pair: -counts[pair[0]]):
        rank = loads.index(min(loads))
        parts[rank].append(row)
        loads[rank] += counts[place]
    return [rows.new_tensor(part) for part in parts]


def micro_batches(
    batch: ScoredBatch,
    fractions: Tensor,
    own: slice,
    rows: Tensor,
    budget: int,
    comparison: DistributionComparison | None = None,
) -> Iterator[MicroBatch]:
    """Yield this rank's micro-batches of an update.

    Every rank holds the whole batch and takes an equal part of the work. Where distributions are compared, a rank takes
    the rows it sampled, since the teachers' hidden states are not gathered. All ranks yield the same number of
    micro-batches, which sharded models need; a rank without further rows yields a row with loss fraction 0.

    Args:
        batch: N rows of all ranks.
        fractions: float64 [N, L], from `loss_fractions`; 0 for rows outside the update.
        own: rows of the global batch that this rank sampled.
        rows: int64. Global rows of the update.
        budget: tokens of a micro-batch, padding included.
        comparison: divergence of this rank's rows, for a direct objective.
    """
    tokens = batch.spans
    if comparison is None:
        taken, spare = balance_over_ranks(rows, tokens, collectives.world_size())[collectives.rank()], tokens.argmin()
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
            fractions=fractions[some, :width] * (number < len(cuts)),
            comparison=comparison.select(some - own.start) if comparison else None,
        )
