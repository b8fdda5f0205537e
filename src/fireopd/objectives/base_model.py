"""Log-ratio objectives with a base model or a baseline."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["BaselinedReverseKL", "ExtrapolatedReverseKL"]

SIGNAL_OF_BASELINE = {"vocabulary": "reverse_kl", "top_k": "topk_reverse_kl"}
"""Signal of vOPD's baseline by the setting."""


@dataclass(frozen=True)
class ExtrapolatedReverseKL(Objective):
    """Extrapolates from a base model beyond the teacher: G-OPD, and ExOPD with a strength above 1 (arXiv 2602.12125).

    A_t = strength log teacher + (1 - strength) log base - log student. Expected gradient: that of the reverse KL to the
    distribution proportional to teacher^strength base^(1 - strength). A strength of 1 is plain OPD; smaller values
    interpolate between base and teacher. The base model is `model.base`: the initial student, or the teacher before its
    reinforcement learning.
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
    """Reverse KL with its value at each state as the baseline: vOPD (arXiv 2605.07865).

    A_t = log teacher - log student + KL(student || teacher), which has mean 0 at each state. Expected gradient: that of
    the reverse KL, with lower variance. Over the whole vocabulary, the mean is exactly 0. The released code also has a
    baseline on the student's likeliest tokens (`kl_top_k`, 100 in its configuration), which leaves the expected
    gradient unchanged.
    """

    baseline: Literal["vocabulary", "top_k"] = "vocabulary"
    """Tokens of the divergence: the whole vocabulary, or the student's `model.top_k` likeliest, on which both
    distributions are normalised to mass 1."""

    @property
    def requires(self) -> frozenset[str]:
        """The log-probabilities, and the divergence that the setting selects."""
        return frozenset({"teacher_logprobs", "student_logprobs", SIGNAL_OF_BASELINE[self.baseline]})

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return log_ratio(batch) + (batch.reverse_kl if self.baseline == "vocabulary" else batch.topk_reverse_kl)
