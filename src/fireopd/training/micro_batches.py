"""Updates of a rollout batch, and their micro-batches under a token budget."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.models.distributions import DistributionComparison
from fireopd.models.lockstep import deal_micro_batches
from fireopd.models.token_budget import by_token_budget
from fireopd.progress import track
from fireopd.types import ScoredBatch

__all__ = ["MicroBatch", "micro_batches", "updates"]


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
    idle: bool = False
    """True for a row that keeps the ranks in lockstep and contributes nothing."""


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


def micro_batches(
    batch: ScoredBatch,
    fractions: Tensor,
    own: slice,
    rows: Tensor,
    budget: int,
    comparison: DistributionComparison | None = None,
) -> Iterator[MicroBatch]:
    """Yield this rank's micro-batches of an update.

    Every rank holds the whole batch and takes an equal part of the work: micro-batches are cut for all ranks together.
    Where distributions are compared, a rank takes the rows it sampled, since the teachers' hidden states are not
    gathered. All ranks yield the same number of micro-batches, which sharded models need; a rank without rows yields an
    idle one.

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
        rounds = deal_micro_batches(tokens[rows], budget, collectives.world_size())
        cuts, spare = [rows[dealt[collectives.rank()]] for dealt in rounds], tokens.argmin()
    else:
        taken, spare = rows[(rows >= own.start) & (rows < own.stop)], own.start + tokens[own].argmin()
        cuts = [taken[index] for index in by_token_budget(tokens[taken], budget)]
        cuts += [rows[:0]] * (collectives.all_reduce_max(len(cuts), rows.device) - len(cuts))
    for cut in track(cuts, "update"):
        some = cut if len(cut) else spare[None]
        width = max(1, int(tokens[some].max()))
        yield MicroBatch(
            tokens=batch.tokens[some, :width],
            response_mask=batch.response_mask[some, :width],
            rows=some,
            fractions=fractions[some, :width] * bool(len(cut)),
            comparison=comparison.select(some - own.start) if comparison else None,
            idle=not len(cut),
        )
