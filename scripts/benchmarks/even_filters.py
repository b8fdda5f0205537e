"""A filter that drops a share of the rows whatever is in them, so that what is measured is the share alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.filters import TrajectoryFilter
from fireopd.types import ScoredBatch


@dataclass(frozen=True)
class EvenFilter(TrajectoryFilter):
    """Drops rows evenly over the lengths; under random models, a filter by likelihood would drop short ones first."""

    drop_fraction: float = 0.0
    """Share of the rows, and very nearly of the tokens."""

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]: of the rows in the order of their lengths one in so many goes, others in every step."""
        offset = torch.rand((), generator=torch.Generator().manual_seed(batch.policy_version))
        ranks = batch.lengths.argsort(stable=True).argsort()
        passed = ((ranks + offset.to(ranks.device)) * self.drop_fraction).floor()
        following = ((ranks + 1 + offset.to(ranks.device)) * self.drop_fraction).floor()
        return following == passed


def dropping_evenly(fraction: float) -> list[str]:
    """Return the arguments of a run that drops so much."""
    key, name = "--model.trajectory_filter", f"{EvenFilter.__module__}.{EvenFilter.__name__}"
    return [key, name, f"{key}.drop_fraction", str(fraction)]
