"""A filter that drops a share of the rows whatever they hold, so that what is measured is the share alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.filters import TrajectoryFilter
from fireopd.types import ScoredBatch


@dataclass(frozen=True)
class RandomFilter(TrajectoryFilter):
    """Drops rows at random: under random models, a filter by likelihood would drop the short ones first."""

    drop_fraction: float = 0.0
    """Share of the rows."""

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N], other rows in every step."""
        rows = len(batch.teachers)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(batch.policy_version))
        keep = torch.ones(rows, dtype=torch.bool)
        keep[order[: round(self.drop_fraction * rows)]] = False
        return keep.to(batch.tokens.device)
