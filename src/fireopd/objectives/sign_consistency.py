"""Objectives that go further where verifier and teacher agree on a token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.reductions import kl
from fireopd.types import ScoredBatch, Source
from fireopd.types.log_ratio import log_ratio

__all__ = ["SignConsistentReverseKL"]


@dataclass(frozen=True)
class SignConsistentReverseKL(DirectObjective):
    """Extrapolates beyond the teacher at tokens on which verifier and teacher agree: SG-OPD (arXiv 2606.09304).

    A_t = r_t + (strength - 1) (log teacher - log base), with the log-ratio r_t. The strength is `agreed` if r_t is
    positive in a correct response, or negative in an incorrect one, else `conflicting`. Tokens that a teacher wrote
    have the forward KL over the vocabulary; see `fireopd.plans.teacher_mix.VerifiedTeacherMix`. The text of the paper
    is not available: gate and strengths are those of a public note, the loss of the teacher's tokens is ours.
    """

    agreed: float = 1.8
    """Strength of the extrapolation where both agree, at least 0; 1 is plain OPD."""
    conflicting: float = 1.0
    """Strength where they do not, at least 0."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "base_logprobs", "rewards"})
    exact_for = frozenset({Source.STUDENT, Source.TEACHER, Source.GIVEN})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name, value in (("agreed", self.agreed), ("conflicting", self.conflicting)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 0 at tokens that the student did not sample."""
        ratio, correct = log_ratio(batch), (batch.rewards > self.threshold)[:, None]
        agrees = torch.where(correct, ratio > 0, ratio < 0)
        strength = torch.where(agrees, self.agreed, self.conflicting).to(ratio.dtype)
        advantage = ratio + (strength - 1) * (batch.teacher_logprobs - batch.base_logprobs)
        return torch.where(batch.tokens_by(Source.STUDENT), advantage, 0.0)

    def coefficient(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 at tokens that the student did not sample, else 0."""
        return (batch.response_mask & ~batch.tokens_by(Source.STUDENT)).to(batch.student_logprobs.dtype)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]: KL(teacher || student)."""
        return kl(teacher, student)
