"""One optimizer step of the student on rows of the global batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fireopd.distributed.gradient_clipping import clip_gradients
from fireopd.models.distributions import DistributionComparison
from fireopd.training.gradients import accumulate_gradients
from fireopd.training.update_targets import UpdateTargets

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["take_step"]


def take_step(
    module: "FiReOPDModule", update: UpdateTargets, own: slice, rows: Tensor, comparison: DistributionComparison | None
) -> dict[str, float]:
    """Take one optimizer step on some global rows, which the ranks share; return loss and gradient norm.

    Nothing changes if loss or gradient are not finite, or if no row has a weight.

    Args:
        module: module of the run.
        update: method, global batch and targets.
        own: rows of the global batch that this rank sampled.
        rows: int64. Global rows of the update.
        comparison: divergence of a direct objective, of this rank's rows.
    """
    optimizer: Any = module.optimizers()
    optimizer.zero_grad()
    settings = (comparison, module.budgets.token_budget, module.manual_backward)
    loss = accumulate_gradients(module.student, update, own, rows, *settings)
    parameters, largest = module.trained_parameters(), module.gradient_clip or torch.inf
    norm = clip_gradients(parameters, largest, module.device, offloaded=module.sharding.offload_student)
    if loss.isfinite() and norm.isfinite() and (norm > 0 or update.has_weight(rows)):
        module.data.interrupts.torn = True  # until `mark_learned`
        with _random_numbers(optimizer, module.policy_version):
            optimizer.step()
        module.versions.update()
        module.policy_version += 1
        scheduler: Any = module.lr_schedulers()
        if scheduler is not None:
            scheduler.step()
    optimizer.zero_grad()  # the next rollout needs the memory
    return {"train/loss": loss.item(), "train/grad_norm": norm.item()}


@contextmanager
def _random_numbers(optimizer: Any, step: int) -> Iterator[None]:
    """Context of a step. Stochastic rounding gets random numbers of the seed and the step, equal in all processes."""
    if not getattr(optimizer, "bf16_stochastic_round", False):
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(torch.initial_seed() + step)
        yield
