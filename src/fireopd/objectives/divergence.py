"""Direct objectives: divergences over the whole vocabulary."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.reductions import kl

__all__ = ["GeneralizedJSD", "SkewKL", "mix"]

SMALLEST = -1e4
"""Lower bound of log-probabilities in a mixture, nats."""


@dataclass(frozen=True)
class GeneralizedJSD(DirectObjective):
    """Generalised Jensen-Shannon divergence: GKD (arXiv 2306.13649, section 2).

    beta KL(teacher || M) + (1 - beta) KL(student || M) with M = beta teacher + (1 - beta) student. As in the paper's
    code, beta = 0 is the forward KL, KL(teacher || student), and beta = 1 the reverse KL, KL(student || teacher).
    """

    beta: float = 0.5
    """In [0, 1]: 0 for the forward KL, 1 for the reverse KL."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {self.beta}")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]."""
        if self.beta == 0:
            return kl(teacher, student)
        if self.beta == 1:
            return kl(student, teacher)
        mixture = mix(student, teacher, self.beta)
        return self.beta * kl(teacher, mixture) + (1 - self.beta) * kl(student, mixture)


@dataclass(frozen=True)
class SkewKL(DirectObjective):
    """Reverse KL to a mixture of teacher and student: DistiLLM (arXiv 2402.03898).

    KL(student || skew student + (1 - skew) teacher), differentiated with respect to both occurrences of the student.
    """

    skew: float = 0.1
    """Fraction of the student in the mixture, in [0, 1); 0 for the reverse KL."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.skew < 1:
            raise ValueError(f"skew must be in [0, 1), got {self.skew}")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]."""
        return kl(student, mix(student, teacher, 1 - self.skew) if self.skew > 0 else teacher)


def mix(student: Tensor, teacher: Tensor, fraction: float) -> Tensor:
    """Return the log of fraction x teacher + (1 - fraction) x student, of log-distributions [T, V], fraction in (0, 1).

    Log-probabilities are clamped to `SMALLEST`, because the gradient of -inf - (-inf) is NaN.
    """
    student, teacher = student.clamp(min=SMALLEST), teacher.clamp(min=SMALLEST)
    return torch.logaddexp(teacher + math.log(fraction), student + math.log(1 - fraction))
