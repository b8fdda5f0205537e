"""Filter by the teacher's surprise at the response, against a threshold that does not depend on the other rows.

A method of fireopd; it has no paper.
"""

from dataclasses import dataclass

from torch import Tensor

from fireopd import reductions
from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch

__all__ = ["SurpriseFilter"]


@dataclass(frozen=True)
class SurpriseFilter(TrajectoryFilter):
    """Drops trajectories that surprise their teacher: those with a low mean log-probability (not from a paper).

    Keeps s >= threshold, where s is the mean log-probability of the response under its teacher. The quantile of
    `TeacherLikelihoodFilter` always drops the same fraction. An absolute threshold drops nothing if the teacher follows
    all responses, mistakes included, and most rows of a teacher that does not know the task. Empty responses are
    dropped, and responses with a token of probability 0.
    """

    threshold: float = -1.5
    """Smallest mean log-probability, at most 0, nats per token."""

    requires = frozenset({"teacher_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the threshold."""
        if not self.threshold <= 0:
            raise ValueError(f"threshold must be at most 0, got {self.threshold}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]; empty responses are dropped."""
        return (batch.lengths > 0) & self._scores(batch).isfinite() & (self._scores(batch) >= self.threshold)

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the score of each trajectory and the threshold."""
        scores = self._scores(batch).tolist()
        return [f"teacher's mean log-prob {score:.3g}, threshold {self.threshold:.3g}" for score in scores]

    def _scores(self, batch: ScoredBatch) -> Tensor:
        return reductions.row_mean(batch.teacher_logprobs, batch.response_mask).double()
