"""FiRe-OPD (arXiv 2606.02684): filter, then reweight, then a clipped policy gradient.

1. The filter keeps or drops whole trajectories.
2. The weighter gives every response token a weight, which is brought to mean 1.
3. The advantage of a token is what the objective says, by default log teacher - log student.
4. The loss is the clipped surrogate of weight x importance x advantage, summed with shares that add up to 1. Where an
   objective compares whole distributions, weight x importance x coefficient x divergence is added to it.

Plain on-policy distillation is the same with `KeepAll` and `UniformWeighter`. Everything here is a pure function of the
*global* rollout batch (N rows); only `fire_loss` is called on parts of it, and since the shares are global, the parts
add up to the same loss and gradient however they are cut. Nothing here knows of devices, processes or models.
"""

from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.types import ScoredBatch, contracts
from fireopd.types.targets import Targets
from fireopd.weighters import TokenWeighter

Normalization = Literal["trajectory", "batch", "none"]
"""Weights of mean 1 over each trajectory (paper, Eq. 8), over all response tokens (released code), or as they are."""
Reduction = Literal["token", "trajectory"]
"""Mean over the kept tokens, or mean over the kept trajectories of their token means."""

MAX_LOG_RATIO = 20.0
"""Where the log-ratio of new to old policy is cut before the exponential, nats."""


@torch.no_grad()
def kept(batch: ScoredBatch, trajectory_filter: TrajectoryFilter) -> Tensor:
    """Return bool [N]: what a filter keeps of a global batch; raise `ValueError` if it answers something else."""
    return contracts.checked_keep(trajectory_filter, trajectory_filter(batch.seen_by(trajectory_filter)), batch)


@torch.no_grad()
def fire_targets(
    batch: ScoredBatch,
    keep: Tensor,
    token_weighter: TokenWeighter,
    objective: Objective,
    *,
    normalization: Normalization = "trajectory",
    importance_cap: float | None = 5.0,
) -> Targets:
    """Reweight a global batch that was filtered.

    Args:
        batch: N trajectories, scored.
        keep: bool [N], from `kept`.
        token_weighter: weighs their tokens.
        objective: gives the advantage of each token, nats, and the coefficient of its divergence if it is direct.
        normalization: over what the weights have mean 1; dropped trajectories count.
        importance_cap: cap of the importance weights between engine and trainer; None applies no such weights.

    Raises:
        ValueError: if a strategy answers something of the wrong shape, type or range.
    """
    weight = contracts.checked_weight(token_weighter, token_weighter(batch.seen_by(token_weighter)), batch)
    advantage = contracts.checked_advantage(objective, objective.advantage(batch.seen_by(objective)), batch)
    mask = batch.response_mask & keep[:, None]
    coefficient = None
    if isinstance(objective, DirectObjective):
        coefficient = objective.coefficient(batch.seen_by(objective))
        coefficient = torch.where(mask, contracts.checked_coefficient(objective, coefficient, batch), 0.0)
    return Targets(
        keep=keep,
        mask=mask,
        weight=torch.where(mask, normalize(weight, batch.response_mask, normalization), 0.0),
        advantage=torch.where(mask, advantage, 0.0),
        importance=importance_weights(batch, mask, importance_cap),
        coefficient=coefficient,
    )


def normalize(weight: Tensor, mask: Tensor, normalization: Normalization) -> Tensor:
    """Divide float [N, L] weights by their mean over the mask, of each row or of all; weights that are all 0 stay 0."""
    if normalization == "none":
        return weight
    by_row = normalization == "trajectory"
    mean = reductions.row_mean(weight, mask)[:, None] if by_row else reductions.mean(weight, mask)
    return torch.where(mean > 0, weight / mean, 0.0)


def importance_weights(batch: ScoredBatch, mask: Tensor, cap: float | None) -> Tensor:
    """Return float [N, L]: min(student / sampler, cap) of each token; the same for every method, never in a plug-in."""
    if cap is not None and batch.sampling.truncated:
        raise ValueError(
            f"importance_cap is {cap}, but the sampling log-probabilities are those of a truncated distribution "
            f"({batch.sampling}), to which the student's have no ratio: set it to null, or sample from all tokens"
        )
    if cap is None:
        return mask.to(batch.student_logprobs.dtype)
    log_ratio = (batch.student_logprobs - batch.sampling_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.where(mask, log_ratio.exp().clamp(max=cap), 0.0)


def loss_fractions(mask: Tensor, reduction: Reduction) -> Tensor:
    """Return float [N, L]: the share of each token in the loss. They add up to 1, or to 0 if nothing is kept.

    Args:
        mask: bool [N, L]. Kept tokens of *all* rows of one update.
        reduction: `token` gives each token the same share, `trajectory` each trajectory.
    """
    kept = mask.to(torch.float64)
    if reduction == "token":
        return kept / kept.sum().clamp(min=1)
    rows = mask.any(-1).sum()
    return kept / kept.sum(-1, keepdim=True).clamp(min=1) / rows.clamp(min=1)


def fire_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    targets: Targets,
    shares: Tensor,
    clip_ratio: float,
    divergence: Tensor | None = None,
) -> Tensor:
    """Return the part of the loss that some rows contribute: a scalar, with a graph even if nothing is kept.

    Args:
        logprobs: float [B, L], with gradient. Log-probabilities under the student as it is now, nats.
        old_logprobs: float [B, L]. The same under the student that the targets were made for.
        targets: of these rows.
        shares: float [B, L]. From `loss_fractions` of the whole update, these rows.
        clip_ratio: the surrogate gives no incentive to move a token's probability further than 1 +/- this.
        divergence: float [B, L], with gradient. Of student and teacher at each token, nats; with a direct objective.
    """
    ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    factor = targets.weight * targets.importance
    gain = factor * targets.advantage
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * gain)
    if targets.coefficient is not None:
        assert divergence is not None, "a direct objective needs the divergence"
        loss = loss + factor * targets.coefficient * divergence
    return torch.where(targets.mask, loss * shares.to(loss.dtype), 0.0).sum()
