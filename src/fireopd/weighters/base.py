"""Token weighters: how much each token of a trajectory matters.

A weighter sees the global batch, answers on any scale, and is masked and brought to mean 1 by `algorithm.py`.
Entry-point group: `fireopd.weighters`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.strategy import Strategy


class TokenWeighter(Strategy, ABC):
    """Gives every response token a weight."""

    setting = "model.token_weighter"
    check = "check_weighter"

    @abstractmethod
    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] >= 0, on any scale; what stands off the response mask is ignored."""


@dataclass(frozen=True)
class UniformWeighter(TokenWeighter):
    """Gives every token the same weight: plain on-policy distillation."""

    by_trajectory = True

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], all 1."""
        return torch.ones(batch.response_mask.shape, device=batch.response_mask.device)
