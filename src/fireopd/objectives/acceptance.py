"""Objectives that accept a token as speculative decoding does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.objectives.topk_divergence import likely_tokens, on_support
from fireopd.reductions import kl
from fireopd.types import ScoredBatch, Source
from fireopd.types.log_ratio import log_ratio
from fireopd.types.row_uniforms import token_uniforms

__all__ = ["AcceptedReverseKL"]


@dataclass(frozen=True)
class AcceptedReverseKL(DirectObjective):
    """Policy gradient at accepted tokens, forward KL at all others: TrOPD (arXiv 2606.01249).

    A token y of the student is accepted with probability min(teacher(y) / student(y), 1). Accepted tokens have the
    log-ratio as their advantage. Rejected ones have the forward KL on the teacher's likeliest tokens, without
    normalisation of the mass on them. Tokens that a teacher wrote, and given ones, have the forward KL times
    `guidance`; see `fireopd.plans.prefix.TeacherPrefix`. There is no published code.

    Expected gradient at a state of the student, with p of the student, q of the teacher and F the forward KL:
    -sum_v min(p_v, q_v) log(q_v / p_v) grad log p_v + (1 - sum_v min(p_v, q_v)) grad F.
    """

    top_k: int = 64
    """Number of likeliest tokens of the teacher, k of the paper."""
    guidance: float = 1e-3
    """Beta of the paper, at least 0: factor of the forward KL at tokens that the student did not sample."""
    seed: int = 0
    """Decides, with the step and the tokens of the trajectory, what is accepted."""

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    exact_for = frozenset({Source.STUDENT, Source.TEACHER, Source.GIVEN})
    by_trajectory = True
    proper = False  # partial sum over the vocabulary

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not self.guidance >= 0:
            raise ValueError(f"guidance must be at least 0, got {self.guidance}")

    @property
    def trains_given(self) -> bool:
        """True with guidance."""
        return self.guidance > 0

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: the log-ratio at accepted tokens, else 0."""
        return torch.where(self._accepted(batch), log_ratio(batch), 0.0)

    def coefficient(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 at rejected tokens, the guidance at tokens of other authors, else 0."""
        own = torch.where(self._accepted(batch), 0.0, 1.0)
        return torch.where(batch.tokens_by(Source.STUDENT), own, self.guidance)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]: the forward KL on the teacher's likeliest tokens."""
        chosen = likely_tokens(student, teacher, self.top_k, "teacher")
        student, teacher = on_support(student, teacher, chosen, "plain")
        return kl(teacher, student)

    def _accepted(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N, L], True at tokens of the student that are accepted."""
        probability = log_ratio(batch).clamp(max=0).exp()
        return batch.tokens_by(Source.STUDENT) & (token_uniforms(batch, self, self.seed) < probability)
