"""Objectives that compare the distributions of student and teacher over the whole vocabulary, by a direct gradient."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.reductions import kl

SMALLEST = -1e4
"""Log-probabilities in a mixture are at least this, nats."""


@dataclass(frozen=True)
class GeneralizedJSD(DirectObjective):
    """The generalised Jensen-Shannon divergence at every state: GKD (arXiv 2306.13649, section 2).

    beta KL(teacher || M) + (1 - beta) KL(student || M) with M = beta teacher + (1 - beta) student. As in the paper's
    code, a beta of 0 stands for the forward KL, KL(teacher || student), and 1 for the reverse, KL(student || teacher).
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
    """The reverse KL to a mixture of teacher and student, which is never far away (DistiLLM, arXiv 2402.03898).

    KL(student || skew student + (1 - skew) teacher), with a gradient through both places of the student.
    """

    skew: float = 0.1
    """Share of the student in the mixture, in [0, 1); 0 for the reverse KL."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.skew < 1:
            raise ValueError(f"skew must be in [0, 1), got {self.skew}")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]."""
        return kl(student, mix(student, teacher, 1 - self.skew) if self.skew > 0 else teacher)


def mix(student: Tensor, teacher: Tensor, share: float) -> Tensor:
    """Return the log of share x teacher + (1 - share) x student, of log-distributions [T, V], share in (0, 1).

    What both rule out has a log-probability of `SMALLEST`: the gradient between two infinities is not a number.
    """
    student, teacher = student.clamp(min=SMALLEST), teacher.clamp(min=SMALLEST)
    return torch.logaddexp(teacher + math.log(share), student + math.log(1 - share))
