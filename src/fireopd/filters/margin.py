"""Filter by the margin between correct and incorrect responses."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["MarginFilter"]


@dataclass(frozen=True)
class MarginFilter(TrajectoryFilter):
    """Drops trajectories until the teacher ranks correct responses above incorrect ones: Uni-OPD (arXiv 2605.03677).

    The gap is the mean log-ratio of the correct responses minus that of the incorrect ones. While the gap is below the
    margin, the filter drops the lowest correct or the highest incorrect response, whichever widens the gap more, until
    max(1, floor(least_kept n)) of n correct responses remain, and likewise of the incorrect ones. If all responses are
    correct, or all incorrect, all are kept. This is the greedy mask of the released code. In addition, empty responses
    and responses with a token of probability 0 are dropped. `MarginReverseKL` shifts log-ratios instead.
    """

    margin: float = 0.4
    """Minimum gap, nats per token; towards minus infinity, everything is kept."""
    least_kept: float = 0.25
    """Minimum fraction of kept responses of each kind, correct and incorrect, in each comparison, in [0, 1]."""
    scope: Literal["group", "batch"] = "group"
    """Compare responses to the same prompt, or all responses of the batch."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})

    @property
    def needs_groups(self) -> bool:
        """True for the scope `group`."""
        return self.scope == "group"

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.least_kept <= 1:
            raise ValueError(f"least_kept must be in [0, 1], got {self.least_kept}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        returns = reductions.row_mean(log_ratio(batch), batch.response_mask)
        correct, keep = batch.rewards > self.threshold, returns.isfinite() & (batch.lengths > 0)
        groups = batch.groups if self.scope == "group" else torch.zeros_like(batch.groups)
        for group in groups.unique():
            rows = (keep & (groups == group)).nonzero().squeeze(-1)
            keep[rows[~self._kept(returns[rows].tolist(), correct[rows].tolist())]] = False
        return keep

    def _kept(self, returns: list[float], correct: list[bool]) -> Tensor:
        """Return bool [n], True for kept trajectories of one comparison."""
        order = sorted(range(len(returns)), key=lambda row: returns[row])
        good = [row for row in order if correct[row]]  # lowest first
        bad = [row for row in reversed(order) if not correct[row]]  # highest first
        kept = torch.ones(len(returns), dtype=torch.bool)

        def gap(first_good: int, first_bad: int) -> float:
            """Return the mean return of the remaining correct responses minus that of the remaining incorrect ones."""
            correct_returns = [returns[row] for row in good[first_good:]]
            incorrect_returns = [returns[row] for row in bad[first_bad:]]
            return sum(correct_returns) / len(correct_returns) - sum(incorrect_returns) / len(incorrect_returns)

        limits = [len(kind) - max(1, int(self.least_kept * len(kind))) for kind in (good, bad)]
        dropped = [0, 0]
        while good and bad and (current := gap(*dropped)) < self.margin:
            steps = [(1, 0)] * (dropped[0] < limits[0]) + [(0, 1)] * (dropped[1] < limits[1])
            gaps = {step: gap(dropped[0] + step[0], dropped[1] + step[1]) for step in steps}
            if not gaps or max(gaps.values()) <= current:
                break
            g, b = max(gaps, key=lambda step: gaps[step])
            kept[good[dropped[0]] if g else bad[dropped[1]]] = False
            dropped = [dropped[0] + g, dropped[1] + b]
        return kept
