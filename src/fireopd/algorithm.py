"""FiRe-OPD (arXiv 2606.02684): filter trajectories, reweight tokens, take a clipped policy-gradient step.

1. `kept`: the filter keeps or drops whole trajectories.
2. `fire_targets`: the weighter gives each response token a weight, normalised to mean 1; the objective gives it an
   advantage, by default log teacher - log student.
3. `loss_fractions`: each kept token gets a fraction of the loss; the fractions of an update add up to 1.
4. `fire_loss`: clipped surrogate of weight x importance x advantage; a direct objective adds weight x importance x
   coefficient x divergence of student and teacher.

Plain on-policy distillation is the special case of `KeepAll` and `UniformWeighter`. All functions are pure and see the
*global* rollout batch (N rows); only `fire_loss` runs on micro-batches, and any split gives the same loss and gradient.
"""

from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.objectives.sources import check_batch_sources
from fireopd.types import Population, ScoredBatch, Source, Targets, contracts
from fireopd.weighters import TokenWeighter

__all__ = ["Normalization", "Reduction", "fire_loss", "fire_targets"]
__all__ += ["importance_weights", "kept", "loss_fractions", "normalize"]

Normalization = Literal["trajectory", "batch", "none"]
"""Weights of mean 1 over each trajectory (paper, Eq. 8), over all response tokens (released code), or unnormalised."""
Reduction = Literal["token", "trajectory"]
"""Mean over the kept tokens, or mean over the kept trajectories of their token means."""

MAX_LOG_RATIO = 20.0  # nats; clamp of log-ratios before the exponential


@torch.no_grad()
def kept(batch: ScoredBatch, trajectory_filter: TrajectoryFilter, population: Population = "rollout_batch") -> Tensor:
    """Return bool [N], True for trajectories that the filter keeps; raise `ValueError` for an invalid answer."""
    masks = []
    for part in batch.populations(population):
        keep = trajectory_filter(part.view_for(trajectory_filter))
        masks.append(contracts.checked_keep(trajectory_filter, keep, part))
    return torch.cat(masks)


@torch.no_grad()
def fire_targets(
    batch: ScoredBatch,
    keep: Tensor,
    token_weighter: TokenWeighter,
    objective: Objective,
    *,
    normalization: Normalization = "trajectory",
    importance_cap: float | None = 5.0,
    population: Population = "rollout_batch",
) -> Targets:
    """Return the targets of N filtered trajectories; raise `ValueError` for an invalid answer of a strategy.

    Args:
        batch: N scored trajectories.
        keep: bool [N], from `kept`.
        token_weighter: gives each token its weight.
        objective: gives each token its advantage, nats; a direct objective also the coefficient of its divergence.
        normalization: tokens over which the weights have mean 1; dropped trajectories count.
        importance_cap: cap of the importance weights between engine and trainer; None disables them.
        population: trajectories that the weighter sees together.
    """
    check_batch_sources(objective, batch)
    weights = []
    for part in batch.populations(population):
        weight = contracts.checked_weight(token_weighter, token_weighter(part.view_for(token_weighter)), part)
        weights.append(normalize(weight, part.response_mask, normalization))
    mask, view = batch.response_mask & keep[:, None], batch.view_for(objective)
    advantage = contracts.checked_advantage(objective, objective.advantage(view), batch)
    coefficient = None
    if isinstance(objective, DirectObjective):
        coefficient = contracts.checked_coefficient(objective, objective.coefficient(view), batch)
        coefficient = torch.where(mask, coefficient, 0.0)
    return Targets(
        keep=keep,
        mask=mask,
        weight=torch.where(mask, torch.cat(weights), 0.0),
        advantage=torch.where(mask, advantage, 0.0),
        importance=importance_weights(batch, mask, importance_cap),
        coefficient=coefficient,
    )


def normalize(weight: Tensor, mask: Tensor, normalization: Normalization) -> Tensor:
    """Divide float [N, L] weights by their mean over the mask, per row or in total; all-zero weights stay 0.

    A power of two first brings the largest weight near 1: it changes no digit, and no mean overflows or vanishes.
    """
    if normalization == "none":
        return weight
    by_row = normalization == "trajectory"
    largest = torch.where(mask, weight, 0.0).amax(-1, keepdim=True) if by_row else reductions.maximum(weight, mask)
    power = torch.where(largest > 0, 4 * torch.frexp(largest).mantissa / largest, 1.0)
    weight = weight * power.clamp(max=2.0**126)
    mean = reductions.row_mean(weight, mask)[:, None] if by_row else reductions.mean(weight, mask)
    return torch.where(mean > 0, weight / mean, 0.0)


def importance_weights(batch: ScoredBatch, mask: Tensor, cap: float | None) -> Tensor:
    """Return float [N, L]: min(student / sampler, cap) of each token of the student, 1 at tokens of other authors.

    Identical for all methods.
    """
    if cap is None:
        return mask.to(batch.student_logprobs.dtype)
    if batch.sampling.truncated:
        raise ValueError(
            f"importance_cap is {cap}, but responses were sampled from a truncated distribution ({batch.sampling}), "
            "so importance weights are undefined: set importance_cap to null, or sample from all tokens"
        )
    log_ratio = (batch.student_logprobs - batch.sampling_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp().clamp(max=cap)
    if batch.sources is not None:
        ratio = torch.where(batch.tokens_by(Source.STUDENT), ratio, 1.0)
    return torch.where(mask, ratio, 0.0)


def loss_fractions(mask: Tensor, reduction: Reduction) -> Tensor:
    """Return float64 [N, L]: the fraction of the loss of each token. The sum is 1, or 0 if nothing is kept.

    Args:
        mask: bool [N, L]. Kept tokens of *all* rows of one update.
        reduction: `token` gives each token the same fraction, `trajectory` each trajectory.
    """
    ones = mask.to(torch.float64)
    if reduction == "token":
        return ones / ones.sum().clamp(min=1)
    rows = mask.any(-1).sum()
    return ones / ones.sum(-1, keepdim=True).clamp(min=1) / rows.clamp(min=1)


def fire_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    targets: Targets,
    fractions: Tensor,
    clip_ratio: float,
    divergence: Tensor | None = None,
) -> Tensor:
    """Return the loss of some rows, a scalar with a graph even if nothing is kept.

    Args:
        logprobs: float [B, L], with gradient. Log-probabilities under the current student, nats.
        old_logprobs: float [B, L]. Log-probabilities under the student before the update, nats.
        targets: targets of these rows.
        fractions: float [B, L]. From `loss_fractions` of the whole update, restricted to these rows.
        clip_ratio: probability ratios outside 1 +/- clip_ratio get no further incentive (PPO clip).
        divergence: float [B, L], with gradient. Divergence at each token, nats; required by a direct objective.
    """
    ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    factor = targets.weight * targets.importance
    gain = factor * targets.advantage
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * gain)
    if targets.coefficient is not None:
        assert divergence is not None, "a direct objective needs the divergence"
        loss = loss + factor * targets.coefficient * divergence
    return torch.where(targets.mask, loss * fractions.to(loss.dtype), 0.0).sum()
