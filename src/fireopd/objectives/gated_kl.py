"""Objectives that combine a policy gradient with a forward KL at gated tokens."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.objectives.topk_divergence import likely_tokens, on_support
from fireopd.reductions import kl
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["EntropyGatedKL", "SignGatedKL"]


@dataclass(frozen=True)
class EntropyGatedKL(DirectObjective):
    """Adds a forward KL where the teacher is uncertain, to preserve the student's diversity: EOPD (arXiv 2603.07079).

    The advantage is that of the reverse KL at every token. Where the teacher's entropy is above the threshold, the
    forward KL on the teacher's likeliest tokens is added. The paper is ambiguous on the normalisation of the teacher's
    mass on these tokens; the default follows Eq. 10.
    """

    entropy_threshold: float = 0.8
    """Tau of the paper, nats; infinity gives plain OPD."""
    strength: float = 1.0
    """Alpha of the paper: factor of the forward KL, at least 0."""
    top_k: int = 16
    """Number of likeliest tokens of the teacher."""
    mass: Literal["teacher", "plain"] = "teacher"
    """`teacher`: normalise the teacher's mass on the support to 1; `plain`: no normalisation."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "teacher_entropy"})
    by_trajectory = True
    proper = False  # partial sum over the vocabulary

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: the advantage of the reverse KL."""
        return log_ratio(batch)

    def coefficient(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: the strength where the teacher's entropy is above the threshold, else 0."""
        return self.strength * (batch.teacher_entropy > self.entropy_threshold).float()

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]: the forward KL on the teacher's likeliest tokens."""
        chosen = likely_tokens(student, teacher, self.top_k, "teacher")
        student, teacher = on_support(student, teacher, chosen, self.mass)
        return kl(teacher, student)


@dataclass(frozen=True)
class SignGatedKL(DirectObjective):
    """Policy gradient at tokens with a positive log-ratio, forward KL at all others: AOPD (arXiv 2605.06387).

    Tokens with a positive log-ratio have it as their advantage. All other tokens have advantage 0 and the forward KL on
    the teacher's likeliest tokens, on which the teacher's mass is normalised to 1. There is no official code; the one
    public implementation normalises the student, too (`mass: both`). Expected gradient: that of the policy gradient at
    the tokens with a positive log-ratio, plus strength times the probability of all other tokens times that of the
    forward KL.
    """

    strength: float = 1.0
    """Factor of the forward KL, at least 0."""
    top_k: int = 16
    """Number of likeliest tokens of the teacher."""
    mass: Literal["teacher", "both"] = "teacher"
    """Models whose mass on the support is normalised to 1."""

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    @property
    def proper(self) -> bool:
        """True for `both`."""
        return self.mass == "both"

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: the log-ratio where it is positive, else 0."""
        return log_ratio(batch).clamp(min=0)

    def coefficient(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: the strength where the log-ratio is not positive, else 0."""
        return torch.where(log_ratio(batch) > 0, 0.0, self.strength)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]: the forward KL on the teacher's likeliest tokens."""
        chosen = likely_tokens(student, teacher, self.top_k, "teacher")
        student, teacher = on_support(student, teacher, chosen, self.mass)
        return kl(teacher, student)
