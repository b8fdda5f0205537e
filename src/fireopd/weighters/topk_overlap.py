"""Weights from the top-k overlap of student and teacher."""

from dataclasses import dataclass

from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.weighters.base import TokenWeighter

__all__ = ["OverlapDecayWeighter"]


@dataclass(frozen=True)
class OverlapDecayWeighter(TokenWeighter):
    """Smaller weights after each token with a low top-k overlap: Prune-OPD (arXiv 2605.07804).

    w_t = max(1 - drop n_t, 0) + base, where n_t is the number of tokens up to t with an overlap below `threshold`: the
    fraction of the student's `model.top_k` likeliest tokens that are among the teacher's. The defaults are those of the
    released file; its scripts use 0.7, 0.01 and 0.5. The paper does not normalise the weights: use
    `normalization: none`.
    """

    threshold: float = 0.9
    """Overlap below which the weight decreases, in [0, 1]."""
    drop: float = 0.02
    """Decrease per token below the threshold, at least 0; 0 gives uniform weights."""
    base: float = 0.0
    """Added to every weight, at least 0."""

    requires = frozenset({"topk_overlap"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name, value in (("threshold", self.threshold), ("drop", self.drop), ("base", self.base)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between base and 1 + base."""
        low = (batch.topk_overlap < self.threshold) & batch.response_mask
        return (1 - self.drop * low.cumsum(-1)).clamp(min=0) + self.base
