"""Log-ratios on a common scale for several teachers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["TeacherScaledReverseKL"]

SMALLEST_RELATIVE_VARIANCE = 1e-12
"""Variance below which log-ratios count as equal, relative to their mean square, as released."""


@dataclass(frozen=True)
class TeacherScaledReverseKL(Objective):
    """Log-ratios with the spread of each teacher's tokens scaled to that of the batch: DN-MOPD (arXiv 2609.35347).

    A_t = w r_t with w = clip(sigma / sigma_d, lowest, highest). sigma is the population standard deviation of log
    teacher - log sampler over all response tokens of the batch, and sigma_d that over the tokens of one teacher. w is
    clip(1) where one of them is 0. No teacher dominates the update by a larger spread; signs are unchanged. The paper
    divides by domain, with one teacher for each. Its loss is a mean over trajectories: use `reduction: trajectory`.
    """

    lowest: float = 0.25
    """Smallest factor, at least 0."""
    highest: float = 4.0
    """Largest factor, at least the smallest."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "sampling_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.lowest <= self.highest:
            raise ValueError(f"lowest must be at least 0 and at most highest, got {self.lowest} and {self.highest}")

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        sampled = batch.teacher_logprobs - batch.sampling_logprobs
        overall = deviation(sampled[batch.response_mask])
        factors = torch.ones_like(batch.teacher_logprobs[:, 0])
        for rows in batch.rows_of_each_teacher():
            own = deviation(sampled[rows][batch.response_mask[rows]])
            if overall > 0 and own > 0:
                factors[rows] = overall / own
        return log_ratio(batch) * factors.clamp(self.lowest, self.highest)[:, None]


def deviation(values: Tensor) -> float:
    """Return the population standard deviation of float [n] `values`; 0 for nearly equal values and for n < 2."""
    if len(values) < 2:
        return 0.0
    exact = values.double()
    variance = exact.var(unbiased=False).item()
    return variance**0.5 if variance > SMALLEST_RELATIVE_VARIANCE * exact.square().mean().item() else 0.0
