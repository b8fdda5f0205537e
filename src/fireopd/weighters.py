"""Token weighters: how much each token of a trajectory matters.

A weighter sees the global batch, answers on any scale, and is masked and brought to mean 1 by `algorithm.py`.
Entry-point group: `fireopd.weighters`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fireopd import reductions, signals, states
from fireopd.signals import Strategy
from fireopd.types import ScoredBatch

SMALLEST_MAXIMUM = 1e-6
"""Entropies are divided by their maximum, or by this where the maximum is smaller, nats."""


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

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], all 1."""
        return torch.ones(batch.response_mask.shape, device=batch.response_mask.device)


@dataclass(frozen=True)
class EntropyWeighter(TokenWeighter):
    """More weight where the teacher is confident and the student confused (FiRe-OPD, arXiv 2606.02684, Eq. 6 and 7).

    w = (1 + alpha c_T)(1 + beta c_S) with confidence c_T = 1 - H_T / max H_T and confusion c_S = H_S / max H_S, the
    maxima over all response tokens of the global batch, those of dropped trajectories included.
    """

    alpha: float = 1.0
    """Strength of the teacher's confidence, at least 0."""
    beta: float = 1.0
    """Strength of the student's confusion, at least 0."""

    requires = frozenset({"teacher_entropy", "student_entropy"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], between 1 and (1 + alpha)(1 + beta)."""
        confidence = 1 - relative(batch.teacher_entropy, batch.response_mask)
        confusion = relative(batch.student_entropy, batch.response_mask)
        return (1 + self.alpha * confidence) * (1 + self.beta * confusion)


def relative(entropy: Tensor, mask: Tensor) -> Tensor:
    """Return float [N, L] entropies divided by their maximum over the mask, between 0 and 1."""
    return (entropy / reductions.maximum(entropy, mask).clamp(min=SMALLEST_MAXIMUM)).clamp(0, 1)


@dataclass(frozen=True)
class ProductOf(TokenWeighter):
    """Multiplies the weights of several weighters."""

    weighters: list[TokenWeighter] = field(default_factory=list)
    """The weighters; with none, every weight is 1."""

    @property
    def requires(self) -> frozenset[str]:
        """What any of the weighters requires."""
        return signals.union(self.weighters)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        weight = UniformWeighter()(batch)
        for part in self.weighters:
            weight = weight * part(batch.seen_by(part))
        return weight

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those weighters that have one."""
        return states.state_of(states.numbered(self.weighters))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give the weighters their states back."""
        states.load_state(states.numbered(self.weighters), state_dict)
