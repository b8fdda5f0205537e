"""Weights from the entropies of teacher and student: the weights of FiRe-OPD."""

from dataclasses import dataclass

from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch
from fireopd.weighters.base import TokenWeighter

__all__ = ["EntropyWeighter", "relative"]

SMALLEST_MAXIMUM = 1e-6
"""Lower bound of the maximum that entropies are divided by, nats."""


@dataclass(frozen=True)
class EntropyWeighter(TokenWeighter):
    """Larger weights for confident teachers and uncertain students (FiRe-OPD, arXiv 2606.02684, Eq. 6 and 7).

    w = (1 + alpha c_T)(1 + beta c_S) with confidence c_T = 1 - H_T / max H_T and confusion c_S = H_S / max H_S. The
    maxima are over all response tokens of the global batch, including dropped trajectories.
    """

    alpha: float = 1.0
    """Factor of the teacher's confidence, at least 0."""
    beta: float = 1.0
    """Factor of the student's confusion, at least 0."""

    requires = frozenset({"teacher_entropy", "student_entropy"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between 1 and (1 + alpha)(1 + beta)."""
        confidence = 1 - relative(batch.teacher_entropy, batch.response_mask)
        confusion = relative(batch.student_entropy, batch.response_mask)
        return (1 + self.alpha * confidence) * (1 + self.beta * confusion)


def relative(entropy: Tensor, mask: Tensor) -> Tensor:
    """Return float [N, L]: entropies divided by their maximum over the mask, in [0, 1]."""
    return (entropy / reductions.maximum(entropy, mask).clamp(min=SMALLEST_MAXIMUM)).clamp(0, 1)
