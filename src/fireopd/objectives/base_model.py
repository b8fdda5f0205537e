"""Objectives that hold the log-ratio against a third quantity: a base model, or the divergence at the state."""

from dataclasses import dataclass

from torch import Tensor

from fireopd.log_ratio import log_ratio
from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch


@dataclass(frozen=True)
class ExtrapolatedReverseKL(Objective):
    """Goes beyond the teacher, away from a base model: G-OPD, and with a strength above 1 ExOPD (arXiv 2602.12125).

    A_t = strength log teacher + (1 - strength) log base - log student. Expected gradient: that of the reverse KL to the
    distribution proportional to teacher^strength base^(1 - strength). 1 is plain OPD, less stays between the two. The
    base is `model.base`: the student as it began, or the teacher before its reinforcement learning.
    """

    strength: float = 1.25
    """Lambda of the paper, at least 0."""

    requires = frozenset({"teacher_logprobs", "base_logprobs", "student_logprobs"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return log_ratio(batch) + (self.strength - 1) * (batch.teacher_logprobs - batch.base_logprobs)


@dataclass(frozen=True)
class BaselinedReverseKL(Objective):
    """The reverse KL with its own value at each state as the baseline: vOPD (arXiv 2605.07865).

    A_t = log teacher - log student + KL(student || teacher), of mean 0 at each state. Expected gradient: that of the
    reverse KL, with less variance. The divergence is that over the whole vocabulary, so that the mean is exactly 0.
    """

    requires = frozenset({"teacher_logprobs", "student_logprobs", "reverse_kl"})

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return log_ratio(batch) + batch.reverse_kl
