"""Weighing whole trajectories by how likely the teacher finds them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch
from fireopd.weighters.base import TokenWeighter


@dataclass(frozen=True)
class TeacherLikelihoodWeighter(TokenWeighter):
    """Less weight for trajectories that their teacher finds unlikely: the soft form of FiRe-OPD's filter.

    exp((s - max s) / temperature) for every token of a trajectory, s being the mean log-probability of the response
    under its teacher and max s that of the likeliest response of the batch, which has the weight 1. The paper compares
    its filter with a soft one (arXiv 2606.02684, ablations); this form of it is ours. Weights that are brought to mean
    1 over each trajectory would undo it: use `normalization: batch`.
    """

    temperature: float = 1.0
    """Divides the mean log-probability, more than 0; the greater, the more alike the weights."""

    requires = frozenset({"teacher_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {self.temperature}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between 0 and 1, the same for all tokens of a trajectory."""
        score = reductions.row_mean(batch.teacher_logprobs, batch.response_mask).nan_to_num(neginf=-1e30)
        score = torch.where(batch.lengths > 0, score, -1e30)
        return ((score - score.max()) / self.temperature).exp()[:, None].expand(batch.response_mask.shape)
