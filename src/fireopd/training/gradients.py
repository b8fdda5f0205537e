"""Loss and gradient of one update, accumulated over micro-batches."""

from collections.abc import Callable

import torch
from torch import Tensor

from fireopd.algorithm import fire_loss, loss_fractions
from fireopd.distributed import collectives
from fireopd.models.distributions import DistributionComparison
from fireopd.models.scorer import CausalScorer
from fireopd.training.micro_batches import micro_batches
from fireopd.training.update_targets import UpdateTargets

__all__ = ["accumulate_gradients"]


def accumulate_gradients(
    student: CausalScorer,
    update: UpdateTargets,
    own: slice,
    rows: Tensor,
    comparison: DistributionComparison | None,
    token_budget: int,
    backward: Callable[[Tensor], None],
) -> Tensor:
    """Run the backward passes of one update, and return its loss, a float64 scalar summed over all ranks.

    Args:
        student: scores the micro-batches.
        update: method, global batch and targets.
        own: rows of the global batch that this rank sampled.
        rows: int64. Global rows of the update, which the ranks share.
        comparison: divergence of a direct objective, of this rank's rows.
        token_budget: tokens of a micro-batch, padding included.
        backward: adds the gradient of a scalar to the student's parameters.
    """
    batch, method = update.batch, update.method
    fractions = torch.zeros(batch.tokens.shape, dtype=torch.float64, device=rows.device)
    fractions[rows] = loss_fractions(batch.response_mask[rows], method.reduction)
    loss = torch.zeros((), dtype=torch.float64, device=rows.device)
    settings = {"temperature": batch.sampling.temperature, "entropy": update.needs_entropy}
    for micro in micro_batches(batch, fractions, own, rows, token_budget, comparison):
        scores = student(micro.tokens, micro.response_mask, comparison=micro.comparison, **settings)
        if micro.idle:
            part = 0.0 * scores.logprobs.sum()
        else:
            old_logprobs, targets = update.of_rows(micro.rows, scores)
            divergence = scores.comparisons.get("divergence")
            part = fire_loss(scores.logprobs, old_logprobs, targets, micro.fractions, method.clip_ratio, divergence)
        # Gradients are averaged over processes, but the parts of the loss add up.
        backward(part * collectives.world_size())
        loss += part.detach()
    return collectives.all_reduce_sum(loss)
