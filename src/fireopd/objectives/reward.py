"""Objectives that put the verifier's grade beside the teacher's log-ratio."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.log_ratio import log_ratio
from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch

READ = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})


@dataclass(frozen=True)
class VerdictGatedReverseKL(Objective):
    """Lets a teacher only raise tokens of correct responses, and only lower those of others: OPDVR (arXiv 2608.24696).

    A_t = max(r_t, 0) where the response is correct, min(r_t, 0) where it is not, r_t being the log-ratio.
    """

    threshold: float = 0.5
    """Responses of a greater reward count as correct."""

    requires = READ

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        ratio, correct = log_ratio(batch), (batch.rewards > self.threshold)[:, None]
        return torch.where(correct, ratio.clamp(min=0), ratio.clamp(max=0))


@dataclass(frozen=True)
class GroupRewardReverseKL(Objective):
    """Group-relative rewards with a pull towards the teacher: KDRL (arXiv 2506.02208).

    A_t = z(R) + strength (log teacher - log student), z(R) the reward standardised over the responses to one prompt
    (GRPO). The paper differentiates -strength / 2 (log student - log teacher)^2; on-policy that is this advantage.
    """

    strength: float = 2e-3
    """Beta of the paper, at least 0."""

    requires = READ

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return reductions.standardized(batch.rewards, batch.groups)[:, None] + self.strength * log_ratio(batch)


@dataclass(frozen=True)
class CreditedReverseKL(Objective):
    """Adds what the verifier says beyond the teacher to each token, by credit: GC-OPD.

    A_t = r_t + strength (z(R) - z(mean r)) c_t. r is the log-ratio; z standardises over the responses to one prompt.
    The credit c_t = 1 + tanh(z_t / 2) is between 0 and 2, z_t being the log-ratio standardised over the trajectory and
    cut at +/- 5; that z_t is of the log-ratio is our reading. The rest is the released code's (SolereZhang/GC-OPD).
    """

    strength: float = 0.05
    """Beta of the paper, at least 0; its runs use 0.1 too."""
    credit: Literal["standardized", "uniform"] = "standardized"
    """Tokens get their share by their log-ratio, or all the same."""

    requires = READ

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        ratio, mask = torch.where(batch.response_mask, log_ratio(batch), 0.0), batch.response_mask
        mean = reductions.row_mean(ratio, mask)
        beyond = reductions.standardized(batch.rewards, batch.groups) - reductions.standardized(mean, batch.groups)
        credit = torch.ones_like(ratio)
        if self.credit == "standardized":
            away = ratio - mean[:, None]
            deviation = reductions.row_mean(away**2, mask).sqrt()[:, None] + reductions.SMALLEST_DEVIATION
            credit = 1 + (0.5 * (away / deviation).clamp(-5, 5)).tanh()
        return ratio + self.strength * beyond[:, None] * credit


@dataclass(frozen=True)
class MarginReverseKL(Objective):
    """Shifts log-ratios until teachers rank correct responses above others by a margin: Uni-OPD (arXiv 2605.03677).

    The gap between correct and incorrect responses is taken of the means of their log-ratios. Where it is below the
    margin, what it lacks is added to every token of the correct ones, or as `shift` says. Where all are correct, or
    none, nothing is shifted.
    """

    margin: float = 0.4
    """Smallest gap, nats a token; towards minus infinity, plain OPD."""
    shift: Literal["correct_up", "incorrect_down", "both"] = "correct_up"
    """Which responses are shifted; `both` by half of it each."""
    gap: Literal["mean", "extreme"] = "mean"
    """Between the means of the two, or between the least correct one and the greatest incorrect one."""
    scope: Literal["group", "batch"] = "group"
    """Compare responses to the same prompt, or all of the batch."""
    threshold: float = 0.5
    """Responses of a greater reward count as correct."""

    requires = READ

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
                lacking = (self.margin - gap_between(returns[good], returns[bad], self.gap)).clamp(min=0)
                shifts[good], shifts[bad] = up * lacking, (up - 1) * lacking
        return ratio + shifts[:, None]


def gap_between(good: Tensor, bad: Tensor, kind: Literal["mean", "extreme"]) -> Tensor:
    """Return the gap between the returns of correct responses, float [n], and incorrect ones, float [m], a scalar."""
    return good.mean() - bad.mean() if kind == "mean" else good.min() - bad.max()
