"""Filtering by how likely the teacher finds the response: the filter of FiRe-OPD."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch


@dataclass(frozen=True)
class TeacherLikelihoodFilter(TrajectoryFilter):
    """Drops the trajectories that their teacher finds unlikely (FiRe-OPD, arXiv 2606.02684, Eq. 4 and 5).

    Keeps s >= quantile(s, drop_fraction), s being the mean log-probability of the response under its teacher. The
    quantile is interpolated linearly: ties survive, one trajectory is kept, the order of rows does not matter.
    """

    drop_fraction: float = 0.2
    """Share of the trajectories to drop, in [0, 1)."""
    per_teacher: bool = False
    """Rank the trajectories of each teacher apart, so that no domain is dropped for being harder to predict."""

    requires = frozenset({"teacher_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.drop_fraction < 1:
            raise ValueError(f"drop_fraction must be in [0, 1), got {self.drop_fraction}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]; empty responses are dropped and have no part in the quantile."""
        scores = self._scores(batch)
        return (batch.lengths > 0) & (scores >= self._thresholds(batch, scores))

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the score of each trajectory beside the quantile that it has to reach."""
        scores = self._scores(batch)
        pairs = zip(scores.tolist(), self._thresholds(batch, scores).tolist(), strict=True)
        return [f"teacher's mean log-prob {score:.3g}, threshold {threshold:.3g}" for score, threshold in pairs]

    def _scores(self, batch: ScoredBatch) -> Tensor:
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask).double()
        return scores.nan_to_num(nan=-1e30, neginf=-1e30)

    def _thresholds(self, batch: ScoredBatch, scores: Tensor) -> Tensor:
        """Return float64 [N]: the quantile of the trajectories that each is ranked among."""
        thresholds = torch.zeros_like(scores)
        everybody = [torch.arange(len(scores), device=scores.device)]
        for population in batch.rows_of_each_teacher() if self.per_teacher else everybody:
            rows = population[batch.lengths[population] > 0]
            if len(rows) > 0:
                thresholds[population] = torch.quantile(scores[rows], self.drop_fraction)
        return thresholds
