"""Penalties of unlikely tokens that grow with the student's entropy, without a teacher."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch

__all__ = ["EntropyRankedPenalty"]

SMALLEST_RANGE = 1e-12
"""Range of entropies below which they count as equal, nats."""


@dataclass(frozen=True)
class EntropyRankedPenalty(Objective):
    """Negative advantages of the tokens that are least likely under the student: OPSA (arXiv 2608.31046).

    A_t = -(smallest + (largest - smallest) h_t) at the selected tokens and 0 at all others, where h is the student's
    entropy scaled to [0, 1] over the selected tokens, 1 if all are equal. Selects max(1, floor(share n)) of the n
    response tokens of the batch; the released code selects on each process. There is no teacher in this method. Its
    loss is a mean over the selected tokens: use `UnlikelyTokenWeighter` with the same share and `normalization: batch`.
    """

    share: float = 0.2
    """Fraction of the response tokens of the batch to select, in (0, 1]; ties are selected together."""
    smallest: float = 0.5
    """Penalty of the selected token with the lowest entropy, nats, greater than 0."""
    largest: float = 1.0
    """Penalty of the selected token with the highest entropy, nats, at least the smallest."""

    requires = frozenset({"student_logprobs", "student_entropy"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")
        if not 0 < self.smallest <= self.largest:
            raise ValueError(
                f"smallest must be greater than 0 and at most largest, got {self.smallest} and {self.largest}"
            )

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: at most 0."""
        mask, entropy = batch.response_mask, batch.student_entropy
        number = max(1, math.floor(self.share * int(batch.lengths.sum())))
        chosen = reductions.lowest(batch.student_logprobs, mask, number)
        low, high = -reductions.maximum(-entropy, chosen), reductions.maximum(entropy, chosen)
        relative = torch.where(high - low > SMALLEST_RANGE, (entropy - low) / (high - low), 1.0)
        return torch.where(chosen, -(self.smallest + (self.largest - self.smallest) * relative), 0.0)
