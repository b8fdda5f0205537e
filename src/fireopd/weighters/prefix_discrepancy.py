"""Weights from the accumulated discrepancy of student and teacher along a response."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio
from fireopd.weighters.base import TokenWeighter

__all__ = ["PrefixDiscrepancyWeighter"]

SMALLEST_TOTAL = 1e-8
"""Lower bound of the sum that discrepancies are divided by, nats."""


@dataclass(frozen=True)
class PrefixDiscrepancyWeighter(TokenWeighter):
    """Smaller weights as the student drifts away from its teacher: IW-OPD (arXiv 2606.22600).

    `w_t = 1 + strength (1 - sum_{i < t} |r_i| / sum_i |r_i|)` with the log-ratio r_i: 1 + strength at the first token,
    towards 1 at the end. This is the form of TRL, whose discrepancies are relative to the sampler's log-probabilities,
    here to those of the student. The paper does not normalise the weights: use `normalization: none`.
    """

    strength: float = 0.5
    """Gamma of TRL: largest weight minus 1, at least 0; 0 gives uniform weights."""

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.strength >= 0:
            raise ValueError(f"strength must be at least 0, got {self.strength}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between 1 and 1 + strength."""
        discrepancy = torch.where(batch.response_mask, log_ratio(batch).abs(), 0.0)
        before = discrepancy.cumsum(-1) - discrepancy
        fraction = before / discrepancy.sum(-1, keepdim=True).clamp(min=SMALLEST_TOTAL)
        return 1 + self.strength * (1 - fraction).clamp(0, 1)
