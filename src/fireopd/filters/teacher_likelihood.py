"""Filter by the likelihood of the response under the teacher: the filter of FiRe-OPD."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch

__all__ = ["TeacherLikelihoodFilter"]


@dataclass(frozen=True)
class TeacherLikelihoodFilter(TrajectoryFilter):
    """Drops trajectories that are unlikely under their teacher (FiRe-OPD, arXiv 2606.02684, Eq. 4 and 5).

    Keeps s >= quantile(s, drop_fraction), where s is the mean log-probability of the response under its teacher. The
    quantile uses linear interpolation: ties are kept, at least one trajectory is kept, and the order of rows has no
    effect. Empty responses are dropped and excluded from the quantile; the released code gives them the score 0, the
    highest possible, which raises the quantile.
    """

    drop_fraction: float = 0.2
    """Fraction of trajectories to drop, in [0, 1)."""
    per_teacher: bool = False
    """Rank the trajectories of each teacher separately, so that a domain with lower likelihoods is not dropped."""

    requires = frozenset({"teacher_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.drop_fraction < 1:
            raise ValueError(f"drop_fraction must be in [0, 1), got {self.drop_fraction}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]; empty responses are dropped and excluded from the quantile."""
        scores = self._scores(batch)
        return (batch.lengths > 0) & (scores >= self._thresholds(batch, scores))

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the score of each trajectory and its threshold."""
        scores = self._scores(batch)
        pairs = zip(scores.tolist(), self._thresholds(batch, scores).tolist(), strict=True)
        return [f"teacher's mean log-prob {score:.3g}, threshold {threshold:.3g}" for score, threshold in pairs]

    def _scores(self, batch: ScoredBatch) -> Tensor:
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask).double()
        return scores.nan_to_num(nan=-1e30, neginf=-1e30)

    def _thresholds(self, batch: ScoredBatch, scores: Tensor) -> Tensor:
        """Return float64 [N]: for each trajectory, the quantile over the trajectories that it is ranked with."""
        thresholds = torch.zeros_like(scores)
        whole_batch = [torch.arange(len(scores), device=scores.device)]
        for population in batch.rows_of_each_teacher() if self.per_teacher else whole_batch:
            rows = population[batch.lengths[population] > 0]
            if len(rows) > 0:
                thresholds[population] = torch.quantile(scores[rows], self.drop_fraction)
        return thresholds
