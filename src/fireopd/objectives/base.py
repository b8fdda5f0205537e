"""Objectives: what the student is asked to move towards. Entry-point group: `fireopd.objectives`.

An objective gives each sampled token an advantage, detached, for a policy gradient. A direct objective gives each state
a divergence of two distributions over the vocabulary, which is differentiated. It may do both. The estimators that go
wrong when they are differentiated (k1 has zero expected gradient, k3 that of the forward divergence) cannot be written
down here: no gradient reaches the log-probability of a sampled token but through the policy gradient.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.strategy import Strategy


class Objective(Strategy, ABC):
    """Says how good each sampled token was."""

    setting = "model.objective"
    check = "check_objective"

    @abstractmethod
    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] in nats: positive raises the token's probability."""


class DirectObjective(Objective):
    """Says how far the student's distribution is from the teacher's at each state that the student visits.

    The loss of a token is coefficient x divergence, beside the policy gradient of its advantage.
    """

    @abstractmethod
    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T] in nats, at least 0, with a gradient through `student`.

        Called on some T tokens of a micro-batch at a time, and again in the backward pass.

        Args:
            student: float32 [T, V]. Log-distribution over the vocabulary before each token.
            teacher: float32 [T, V]. The same of the row's own teacher, without gradient.
        """

    def coefficient(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] >= 0, by what the divergence of each token is multiplied: 1 unless a subclass differs."""
        return torch.ones(batch.response_mask.shape, device=batch.response_mask.device)

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L]: 0, no policy gradient, unless a subclass differs."""
        return torch.zeros(batch.response_mask.shape, device=batch.response_mask.device)
