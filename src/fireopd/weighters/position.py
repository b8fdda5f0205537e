"""Weights from the position of a token in its response."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.row_uniforms import row_uniforms
from fireopd.weighters.base import TokenWeighter

__all__ = ["PositionWeighter", "WindowWeighter"]


def positions(batch: ScoredBatch) -> Tensor:
    """Return int64 [N, L]: the position of each response token in its response, from 1."""
    return batch.response_mask.cumsum(-1)


@dataclass(frozen=True)
class PositionWeighter(TokenWeighter):
    """Smaller weights at the beginning of a response: PW-OPSD (arXiv 2605.21606).

    w_t = floor + (1 - floor) sigmoid(((t - 1/2) / T - middle) / width), t from 1 to the length T of the response. The
    paper does not normalise the weights: use `normalization: none`.
    """

    floor: float = 0.25
    """Lower bound of the weights, in [0, 1]; 1 for uniform weights."""
    middle: float = 0.3
    """Relative position of the midpoint of the rise, as a fraction of the length."""
    width: float = 0.1
    """Width of the rise, as a fraction of the length; greater than 0."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be in [0, 1], got {self.floor}")
        if not self.width > 0:
            raise ValueError(f"width must be greater than 0, got {self.width}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between floor and 1."""
        relative = (positions(batch) - 0.5) / batch.lengths.clamp(min=1)[:, None]
        return self.floor + (1 - self.floor) * ((relative - self.middle) / self.width).sigmoid()


@dataclass(frozen=True)
class WindowWeighter(TokenWeighter):
    """Weight 1 in a window of each response, by default its first 100 tokens, else 0: ESR (arXiv 2605.27028).

    Responses are still sampled to their end. To save that time as the paper does, lower
    `data.engine.max_response_length`. The paper's loss is a mean over the tokens of the window: use
    `normalization: batch`.
    """

    size: int = 100
    """Length of the window, tokens, at least 1."""
    place: Literal["first", "random"] = "first"
    """Position of the window: at the first token, or at a random token of each response."""
    seed: int = 0
    """Seed of the random position, which also depends on the step and the tokens, but not on the order of rows."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        starts = torch.zeros_like(batch.lengths)
        if self.place == "random":
            choices = (batch.lengths - self.size).clamp(min=0) + 1
            starts = (row_uniforms(batch, self, self.seed) * choices).long()
        position = positions(batch) - starts[:, None]
        return ((position >= 1) & (position <= self.size)).float()
