"""Weighing by how far a response has come from what its teacher would go on with."""

from dataclasses import dataclass

from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.weighters.base import TokenWeighter


@dataclass(frozen=True)
class OverlapDecayWeighter(TokenWeighter):
    """Less weight after each token at which student and teacher have others in mind: Prune-OPD (arXiv 2605.07804).

    w_t = max(1 - drop n_t, 0) + base, n_t counting the tokens up to t at which less than `threshold` of the student's
    `model.top_k` likeliest tokens are among the teacher's. The defaults are those of the released file; its scripts use
    0.7, 0.01 and 0.5. The paper leaves the weights as they are: use `normalization: none`.
    """

    threshold: float = 0.9
    """Least overlap of a token that counts as shared, in [0, 1]."""
    drop: float = 0.02
    """What each other token takes away, at least 0; with a base of 0, 0 gives uniform weights."""
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
        apart = (batch.topk_overlap < self.threshold) & batch.response_mask
        return (1 - self.drop * apart.cumsum(-1)).clamp(min=0) + self.base
