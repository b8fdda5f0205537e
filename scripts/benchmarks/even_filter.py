"""Filter that drops a fraction of the rows independent of their content, to measure the effect of the fraction."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.filters import TrajectoryFilter
from fireopd.types import ScoredBatch


@dataclass(frozen=True)
class EvenFilter(TrajectoryFilter):
    """Drops rows evenly over the lengths; with random models, a likelihood filter would drop short rows first."""

    drop_fraction: float = 0.0
    """Fraction of the rows, and approximately of the tokens."""

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N] that drops rows at equal distances in the order of lengths, different ones in each step."""
        offset = torch.rand((), generator=torch.Generator().manual_seed(batch.policy_version))
        ranks = batch.lengths.argsort(stable=True).argsort()
        passed = ((ranks + offset.to(ranks.device)) * self.drop_fraction).floor()
        following = ((ranks + 1 + offset.to(ranks.device)) * self.drop_fraction).floor()
        return following == passed


def dropping_evenly(fraction: float) -> list[str]:
    """Return the arguments of a run that drops this fraction of the rows."""
    key, name = "--model.trajectory_filter", f"{EvenFilter.__module__}.{EvenFilter.__name__}"
    return [key, name, f"{key}.drop_fraction", str(fraction)]
