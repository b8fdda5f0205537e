"""Objectives in which the outcome of a response decides how much its tokens count."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["DualPathReverseKL", "OutcomeAlignedReverseKL"]

REQUIRED = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})
SMALLEST_SCALE = 1e-8
"""Lower bound of the median that log-ratios are divided by, nats (epsilon of R2-OPD)."""


@dataclass(frozen=True)
class DualPathReverseKL(Objective):
    """Maximum likelihood of correct responses, reverse KL on incorrect ones: SCOPE (arXiv 2604.10688).

    A_t = w_i if response i is correct, w_i r_t otherwise, with the log-ratio r_t. Among the n correct responses to one
    prompt, w is n times the softmax of -s / temperature with the student's mean log-probability s: unlikely correct
    responses count most. Among the incorrect ones, it is n times the softmax of the teacher's mean log-probability /
    temperature: responses that the teacher understands count most. These are the paper's weights, with mean 1 as in the
    released code. The release differs: its scripts give likely correct responses the larger weights (the sign of
    `student_path_ppl_positive` is reversed), average the two kinds separately in each micro-batch, and differentiate
    k3 on incorrect responses, whose expected gradient is that of the forward KL.
    """

    temperature: float = 1.0
    """Tau of the paper, greater than 0; larger values give more uniform weights."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = REQUIRED
    needs_groups = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {self.temperature}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: at least 0 for correct responses."""
        mask, correct = batch.response_mask, batch.rewards > self.threshold
        student, teacher = (reductions.row_mean(x, mask) for x in (batch.student_logprobs, batch.teacher_logprobs))
        score = torch.where(correct, -student, teacher).double() / self.temperature
        weight = mean_one_softmax(score, 2 * batch.groups + correct, batch.lengths > 0)
        return weight.to(student.dtype)[:, None] * torch.where(correct[:, None], 1.0, log_ratio(batch))


def mean_one_softmax(scores: Tensor, kinds: Tensor, used: Tensor) -> Tensor:
    """Return float64 [N]: the softmax of the scores over the used rows of each kind, times their number; 0 elsewhere.

    Args:
        scores: float64 [N].
        kinds: int64 [N]. Rows with equal numbers are compared.
        used: bool [N].
    """
    weights = torch.zeros_like(scores)
    for kind in kinds[used].unique():
        rows = used & (kinds == kind)
        weights[rows] = scores[rows].softmax(0) * rows.sum()
    return weights


@dataclass(frozen=True)
class OutcomeAlignedReverseKL(Objective):
    """Larger log-ratios where the verdict confirms them, smaller ones elsewhere: R2-OPD (arXiv 2609.35517).

    A_t = Z g_t r_t with `g_t = sigmoid(sharpness z r_t / median |r|)`, where z is 1 for correct responses and -1 for
    incorrect ones, the median is over the response, and Z keeps the sum of the absolute advantages of a response at
    that of its log-ratios. Truncated responses keep their log-ratios. A sharpness of 0 is plain OPD; towards infinity,
    tokens on which verdict and teacher disagree are dropped, as in OPDVR.
    """

    sharpness: float = 1e-3
    """Beta of the paper, at least 0."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = REQUIRED
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.sharpness >= 0:
            raise ValueError(f"sharpness must be at least 0, got {self.sharpness}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], of the signs of the log-ratios."""
        ratio = torch.where(batch.response_mask, log_ratio(batch), 0.0)
        median = reductions.row_median(ratio.abs(), batch.response_mask)[:, None].clamp(min=SMALLEST_SCALE)
        outcome = torch.where(batch.rewards > self.threshold, 1.0, -1.0).to(ratio.dtype)[:, None]
        gate = (self.sharpness * outcome * ratio / median).sigmoid()
        total, gated = (x.abs().sum(-1, keepdim=True) for x in (ratio, gate * ratio))
        aligned = torch.where(gated > 0, gate * ratio * (total / gated), 0.0)
        return torch.where(batch.finished[:, None], aligned, ratio)
