"""Base class of token weighters. Entry-point group: `fireopd.weighters`.

A weighter sees the global batch and returns weights of any scale; `fireopd.algorithm` masks and normalises them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.strategy import Strategy

__all__ = ["TokenWeighter", "UniformWeighter"]


class TokenWeighter(Strategy, ABC):
    """Gives every response token a weight."""

    setting = "model.token_weighter"
    check = "check_weighter"

    @abstractmethod
    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] >= 0 of any scale; values off the response mask are ignored."""


@dataclass(frozen=True)
class UniformWeighter(TokenWeighter):
    """Gives every token the same weight: plain on-policy distillation."""

    by_trajectory = True

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], all 1."""
        return torch.ones(batch.response_mask.shape, device=batch.response_mask.device)
