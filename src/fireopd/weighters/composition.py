"""Product of several weighters."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fireopd.types import ScoredBatch, strategy_state
from fireopd.types.strategy import union
from fireopd.weighters.base import TokenWeighter, UniformWeighter

__all__ = ["ProductOf"]


@dataclass(frozen=True)
class ProductOf(TokenWeighter):
    """Multiplies the weights of several weighters."""

    weighters: list[TokenWeighter] = field(default_factory=list)
    """The weighters; an empty list gives every token the weight 1."""

    @property
    def requires(self) -> frozenset[str]:
        """Signals required by any of the weighters."""
        return union(self.weighters)

    @property
    def by_trajectory(self) -> bool:
        """True if it is True for all of the weighters."""
        return all(part.by_trajectory for part in self.weighters)

    @property
    def needs_groups(self) -> bool:
        """True if it is True for any of the weighters."""
        return any(part.needs_groups for part in self.weighters)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        weight = UniformWeighter()(batch)
        for part in self.weighters:
            weight = weight * part(batch.view_for(part))
        return weight

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the stateful weighters."""
        return strategy_state.state_of(strategy_state.numbered(self.weighters))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of the weighters."""
        strategy_state.load_state(strategy_state.numbered(self.weighters), state_dict)
