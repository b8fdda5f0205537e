"""Weights from the likelihood of the whole response under the teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch
from fireopd.weighters.base import TokenWeighter

__all__ = ["TeacherLikelihoodWeighter"]


@dataclass(frozen=True)
class TeacherLikelihoodWeighter(TokenWeighter):
    """Smaller weights for trajectories that are unlikely under their teacher: a soft form of FiRe-OPD's filter.

    w = exp((s - max s) / temperature) for every token of a trajectory, where s is the mean log-probability of the
    response under its teacher and max s is the maximum over the batch. The paper compares its filter with a soft one
    (arXiv 2606.02684, ablations) without a formula; this formula is our choice. Use `normalization: batch`: normalising
    over each trajectory cancels these weights.
    """

    temperature: float = 1.0
    """Divides the mean log-probability, greater than 0; larger values give more uniform weights."""

    requires = frozenset({"teacher_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {self.temperature}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L] in [0, 1], constant over each trajectory."""
        score = reductions.row_mean(batch.teacher_logprobs, batch.response_mask).nan_to_num(neginf=-1e30)
        score = torch.where(batch.lengths > 0, score, -1e30)
        return ((score - score.max()) / self.temperature).exp()[:, None].expand(batch.response_mask.shape)
