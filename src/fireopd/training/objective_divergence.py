"""Divergence of a direct objective, computed in the student's forward pass."""

from torch import Tensor

from fireopd.models.distributions import DistributionComparison, TeacherDistributions
from fireopd.objectives import DirectObjective, Objective
from fireopd.types import contracts

__all__ = ["divergence_comparison"]


def divergence_comparison(
    objective: Objective, distributions: TeacherDistributions | None
) -> DistributionComparison | None:
    """Return the comparison that computes a direct objective's divergence as `divergence`.

    None if the objective is not direct or no distributions are given.
    """
    if distributions is None or not isinstance(objective, DirectObjective):
        return None

    def measure(student: Tensor, teacher: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Return the estimate of the divergence, float [T], of log-distributions [T, V], with its gradient."""
        divergence = objective.estimate(student, teacher, tokens)
        return {"divergence": contracts.checked_divergence(objective, divergence, student)}

    return DistributionComparison(distributions, measure)
