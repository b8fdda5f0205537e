"""Weighters that look at nothing but the place of a token in its response."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.row_uniforms import row_uniforms
from fireopd.weighters.base import TokenWeighter


def places(batch: ScoredBatch) -> Tensor:
    """Return int64 [N, L]: the place of each response token in its response, from 1."""
    return batch.response_mask.cumsum(-1)


@dataclass(frozen=True)
class PositionWeighter(TokenWeighter):
    """Less weight at the beginning of a response: PW-OPSD (arXiv 2605.21606).

    w_t = floor + (1 - floor) sigmoid(((t - 1/2) / T - middle) / width), t from 1 to the length T of the response. The
    paper leaves the weights as they are: use `normalization: none`.
    """

    floor: float = 0.25
    """Weight that no token is below, in [0, 1]; 1 for uniform weights."""
    middle: float = 0.3
    """Where in the response the weight has half risen, as a share of its length."""
    width: float = 0.1
    """How slowly it rises, as a share of the length; more than 0."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be in [0, 1], got {self.floor}")
        if not self.width > 0:
            raise ValueError(f"width must be greater than 0, got {self.width}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between floor and 1."""
        share = (places(batch) - 0.5) / batch.lengths.clamp(min=1)[:, None]
        return self.floor + (1 - self.floor) * ((share - self.middle) / self.width).sigmoid()


@dataclass(frozen=True)
class WindowWeighter(TokenWeighter):
    """A stretch of each response and no more, by default its first 100 tokens: ESR (arXiv 2605.27028).

    Responses are sampled to their end: the loss is the paper's, the time it saves is not; for that, lower
    `data.engine.max_response_length`. The paper's loss is a mean over the chosen tokens: use `normalization: batch`.
    """

    size: int = 100
    """Tokens, at least 1."""
    place: Literal["first", "random"] = "first"
    """From the first token on, or from a token drawn for each trajectory, the stretch within the response."""
    seed: int = 0
    """Decides, with the step and the trajectory's tokens, what is drawn; the order of rows does not matter."""

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
        place = places(batch) - starts[:, None]
        return ((place >= 1) & (place <= self.size)).float()
