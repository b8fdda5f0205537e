"""Objectives that combine rewards with the log-ratio."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["CreditedReverseKL", "GroupRewardReverseKL", "MarginReverseKL", "VerdictGatedReverseKL"]

REQUIRED = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})


@dataclass(frozen=True)
class VerdictGatedReverseKL(Objective):
    """Positive log-ratios of correct responses, negative ones of incorrect responses: OPDVR (arXiv 2608.24696).

    A_t = max(r_t, 0) if the response is correct, min(r_t, 0) otherwise, with the log-ratio r_t. The same paper's GRPD
    (group-relative policy distillation) multiplies A_t by the absolute value of the verdict relative to the responses
    to the same prompt, so that a group of equal verdicts has no effect: `centered` in the paper, `standardized` as the
    default of the released script.
    """

    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""
    scale: Literal["none", "centered", "standardized"] = "none"
    """Factor of a response: 1 (OPDVR), or the absolute value of its verdict, 1 or 0, minus the mean over its group
    (GRPD), also divided by the standard deviation."""

    requires = REQUIRED

    @property
    def needs_groups(self) -> bool:
        """True unless the scale is `none`."""
        return self.scale != "none"

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        ratio, correct = log_ratio(batch), batch.rewards > self.threshold
        gated = torch.where(correct[:, None], ratio.clamp(min=0), ratio.clamp(max=0))
        if self.scale == "none":
            return gated
        verdicts = correct.to(ratio.dtype)
        if self.scale == "standardized":
            return gated * reductions.standardized(verdicts, batch.groups).abs()[:, None]
        return gated * (verdicts - reductions.group_mean(verdicts, batch.groups)).abs()[:, None]


@dataclass(frozen=True)
class GroupRewardReverseKL(Objective):
    """Group-relative rewards plus the log-ratio: KDRL (arXiv 2506.02208).

    A_t = z(R) + strength (log teacher - log student), where z(R) is the reward standardised over the responses to one
    prompt (GRPO); with one response it is 0, where verl's GRPO has the reward. The paper differentiates
    -strength / 2 (log student - log teacher)^2, which is this advantage on-policy.
    """

    strength: float = 2e-3
    """Beta of the paper, at least 0."""

    requires = REQUIRED
    needs_groups = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return reductions.standardized(batch.rewards, batch.groups)[:, None] + self.strength * log_ratio(batch)


@dataclass(frozen=True)
class CreditedReverseKL(Objective):
    """Log-ratio plus the excess of the reward over the teacher's ranking, distributed over tokens by credit: GC-OPD.

    A_t = clip(r_t + strength (z(R) - z(mean r)) c_t, +/- limit). r is the log-ratio; z standardises over the responses
    to one prompt with the population standard deviation. The excess z(R) - z(mean r) is 0 in groups with equal rewards
    or equal mean log-ratios. The credit c_t = 1 + tanh(z_t / 2) is in [0, 2], where z_t is the log-ratio standardised
    over the trajectory. This is the released code (SolereZhang/GC-OPD) with its credit `raca`.

    Expected gradient: that of the reverse KL where the excess is 0 and no token is beyond the limit.
    """

    strength: float = 0.05
    """Beta of the paper, at least 0; its runs also use 0.1."""
    credit: Literal["standardized", "uniform"] = "standardized"
    """Credit by the standardised log-ratio, or 1 for all tokens."""
    limit: float | None = 10.0
    """Largest absolute value of an advantage, nats, greater than 0, as released; None for no limit."""

    requires = REQUIRED
    needs_groups = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"limit must be greater than 0, got {self.limit}; null for none")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between -limit and limit."""
        ratio, mask = torch.where(batch.response_mask, log_ratio(batch), 0.0), batch.response_mask
        mean = reductions.row_mean(ratio, mask)
        credit = torch.ones_like(ratio)
        if self.credit == "standardized":
            centered = ratio - mean[:, None]
            deviation = reductions.row_mean(centered**2, mask).sqrt()[:, None]
            varies = deviation.isfinite() & (deviation > reductions.SMALLEST_DEVIATION)
            credit = torch.where(varies, 1 + (0.5 * centered / deviation).tanh(), 1.0)
        advantage = ratio + self.strength * excess_rewards(batch.rewards, mean, batch.groups)[:, None] * credit
        return advantage if self.limit is None else advantage.clamp(-self.limit, self.limit)


def excess_rewards(rewards: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """Return float [N]: standardised rewards minus standardised scores within each group of int64 [N] `groups`.

    0 for groups in which rewards or scores are equal, and for rows with non-finite values, which the statistics ignore.
    """
    excess = torch.zeros_like(rewards)
    for group in groups.unique():
        rows = (groups == group) & rewards.isfinite() & scores.isfinite()
        pair = torch.stack([rewards[rows], scores[rows]]).double()
        deviation = pair.std(-1, keepdim=True, unbiased=False)
        if rows.any() and (deviation > reductions.SMALLEST_DEVIATION).all():
            reward, score = (pair - pair.mean(-1, keepdim=True)) / deviation
            excess[rows] = (reward - score).to(rewards.dtype)
    return excess


@dataclass(frozen=True)
class MarginReverseKL(Objective):
    """Shifts log-ratios so that correct responses exceed incorrect ones by a margin: Uni-OPD (arXiv 2605.03677).

    The gap is the mean log-ratio of correct responses minus that of incorrect ones. If the gap is below the margin, the
    difference is added to every token of the correct responses, or distributed as set by `shift`. If all responses are
    correct, or all incorrect, nothing is shifted. The default shift is that of the paper; all released scripts use
    `both`.
    """

    margin: float = 0.4
    """Minimum gap, nats per token; towards minus infinity, plain OPD."""
    shift: Literal["correct_up", "incorrect_down", "both"] = "correct_up"
    """Shifted responses; `both` shifts each kind by half of the difference."""
    gap: Literal["mean", "extreme"] = "mean"
    """Gap between the means, or between the lowest correct and the highest incorrect response."""
    scope: Literal["group", "batch"] = "group"
    """Compare responses to the same prompt, or all responses of the batch."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = REQUIRED

    @property
    def needs_groups(self) -> bool:
        """True for the scope `group`."""
        return self.scope == "group"

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        ratio, correct = log_ratio(batch), batch.rewards > self.threshold
        returns, shifts = reductions.row_mean(ratio, batch.response_mask), torch.zeros_like(batch.rewards)
        groups = batch.groups if self.scope == "group" else torch.zeros_like(batch.groups)
        usable = returns.isfinite() & (batch.lengths > 0)
        up = {"correct_up": 1.0, "incorrect_down": 0.0, "both": 0.5}[self.shift]
        for group in groups.unique():
            good, bad = (kind & usable & (groups == group) for kind in (correct, ~correct))
            if good.any() and bad.any():
                missing = (self.margin - gap_between(returns[good], returns[bad], self.gap)).clamp(min=0)
                shifts[good], shifts[bad] = up * missing, (up - 1) * missing
        return ratio + shifts[:, None]


def gap_between(good: Tensor, bad: Tensor, kind: Literal["mean", "extreme"]) -> Tensor:
    """Return the gap between mean log-ratios of correct, float [n], and incorrect responses, float [m], a scalar."""
    return good.mean() - bad.mean() if kind == "mean" else good.min() - bad.max()
