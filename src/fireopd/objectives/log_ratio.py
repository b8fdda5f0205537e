"""Objectives from the log-ratio of teacher to student at the sampled token: plain OPD and bounded variants."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import FloorFormula, floor_of, log_ratio

__all__ = [
    "ClippedReverseKL",
    "FixedPenalty",
    "FlooredReverseKL",
    "PowerDifference",
    "ReverseKL",
    "SoftLogRatio",
]


@dataclass(frozen=True)
class ReverseKL(Objective):
    """KL(student || teacher) at every state that the student visits: the objective of OPD and FiRe-OPD.

    A_t = log teacher(y_t) - log student(y_t). Expected gradient: that of the reverse KL at each state, with the states
    held fixed (arXiv 2606.02684, section 3; thinkingmachines.ai, On-Policy Distillation).
    """

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    by_trajectory = True

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return log_ratio(batch)


@dataclass(frozen=True)
class ClippedReverseKL(ReverseKL):
    """Reverse KL with the log-ratio of each token clipped on both sides.

    Expected gradient: that of the reverse KL if no token is beyond the limit.
    """

    limit: float = 5.0
    """Largest absolute value of an advantage, nats, greater than 0."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.limit > 0:
            raise ValueError(f"limit must be greater than 0, got {self.limit}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between -limit and limit."""
        return log_ratio(batch).clamp(-self.limit, self.limit)


@dataclass(frozen=True)
class SoftLogRatio(ReverseKL):
    """Compressed log-ratio, `A_t = sign(r_t) log(1 + |r_t|)`, which limits the advantage of large log-ratios."""

    by_trajectory = True

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        ratio = log_ratio(batch)
        return ratio.sign() * ratio.abs().log1p()


@dataclass(frozen=True)
class FlooredReverseKL(ReverseKL):
    """Reverse KL with a floor of the log-ratio: the objective of REOPOLD (arXiv 2603.11137).

    A_t = max(r_t, floor). The floor is that of a teacher mixed with a fraction of the student. Two formulas are in use,
    which give -2.558 and -2.197 nats for a mixing of 0.1. The first is the default, because
    log(m + (1 - m) e^r) >= (1 - m) r.
    """

    mixing: float = 0.1
    """Fraction of the student in the mixture, in (0, 1); towards 0, the floor tends to minus infinity."""
    floor: FloorFormula = "scaled"
    """`scaled`: log(mixing) / (1 - mixing); `logit`: log(mixing / (1 - mixing))."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 < self.mixing < 1:
            raise ValueError(f"mixing must be in (0, 1), got {self.mixing}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], at least the floor."""
        return log_ratio(batch).clamp(min=floor_of(self.mixing, self.floor))


@dataclass(frozen=True)
class PowerDifference(ReverseKL):
    """Difference of powers of the two probabilities, in [-1, 1]: PowerOPD (arXiv 2606.17199).

    A_t = teacher(y_t)^power - student(y_t)^power. For power towards 0, A_t / power tends to the log-ratio. Expected
    gradient: that of sum_v [student_v^(1 + power) / (1 + power) - student_v teacher_v^power].
    """

    power: float = 1.0
    """Exponent, greater than 0. The paper tunes it per benchmark, between 0.1 and 500."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.power > 0:
            raise ValueError(f"power must be greater than 0, got {self.power}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return (self.power * batch.teacher_logprobs).exp() - (self.power * batch.student_logprobs).exp()


@dataclass(frozen=True)
class FixedPenalty(Objective):
    """Control without a teacher: the same negative advantage for every token (arXiv 2608.31046, `fixed-negative`).

    With `UnlikelyTokenWeighter` and `normalization: batch`, it lowers the fifth of the tokens that is least likely
    under the student, which comes close to distillation in the paper. A method that does not exceed this control gains
    nothing from its teacher. Expected gradient: 0 if all tokens have the same weight.
    """

    penalty: float = 0.5
    """Absolute value of the negative advantage, nats, greater than 0; 0.5 as released."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.penalty > 0:
            raise ValueError(f"penalty must be greater than 0, got {self.penalty}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: -penalty."""
        return torch.full(batch.response_mask.shape, -self.penalty, device=batch.response_mask.device)
