"""Base classes of objectives. Entry-point group: `fireopd.objectives`.

An objective gives each sampled token a detached advantage for the policy gradient. A direct objective gives each state
a divergence of two distributions over the vocabulary, which is differentiated; it may also give an advantage. Sampled
estimators with a wrong gradient when differentiated (k1: zero in expectation; k3: that of the forward KL) cannot be
expressed: the log-probability of a sampled token gets its gradient from the policy gradient only.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fireopd.types import ScoredBatch, Source
from fireopd.types.strategy import Strategy

__all__ = ["DirectObjective", "Objective"]


class Objective(Strategy, ABC):
    """Computes the advantage of each sampled token."""

    setting = "model.objective"
    check = "check_objective"

    @property
    def direct(self) -> bool:
        """True for a `DirectObjective`, and for an objective that is one at some step."""
        return isinstance(self, DirectObjective)

    @property
    def exact_for(self) -> frozenset[Source]:
        """Authors of the tokens at which the gradient is that of the objective: the student only, by default.

        An estimate from the sampled token, such as a log-ratio, is wrong at tokens that another model wrote. A run with
        such tokens is refused. A subclass may assign a frozenset.
        """
        return frozenset({Source.STUDENT})

    @property
    def trains_given(self) -> bool:
        """True to train on given tokens, too, such as a part of a solution; they are context otherwise.

        A subclass may assign True.
        """
        return False

    @abstractmethod
    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] in nats: positive raises the token's probability."""


class DirectObjective(Objective):
    """Computes a divergence of student and teacher at each state that the student visits.

    The loss of a token is coefficient x divergence, in addition to the policy gradient of its advantage.
    """

    @property
    def exact_for(self) -> frozenset[Source]:
        """All authors if divergence and coefficient do not depend on the sampled token, else the student only.

        Only the methods of this class are known not to: a subclass that overrides `advantage`, `coefficient` or
        `estimate` declares other authors itself.
        """
        names = ("advantage", "coefficient", "estimate")
        own = all(getattr(type(self), name) is getattr(DirectObjective, name) for name in names)
        return frozenset(Source) - {Source.PROMPT} if own else super().exact_for

    @property
    def proper(self) -> bool:
        """True if the divergence is >= 0, and 0 with a gradient of 0 for equal distributions.

        Partial sums over the vocabulary may lack these properties. A subclass may assign False.
        """
        return True

    @abstractmethod
    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T] in nats, differentiable with respect to `student`; >= 0 if `proper`.

        Called on chunks of T tokens of a micro-batch, and again in the backward pass.

        Args:
            student: float32 [T, V]. Log-distribution over the vocabulary before each token.
            teacher: float32 [T, V]. Log-distribution of the row's own teacher, without gradient.
        """

    def estimate(self, student: Tensor, teacher: Tensor, tokens: Tensor) -> Tensor:
        """Return float [T]: the loss of each state; by default the divergence, whatever the sampled token.

        A subclass whose divergence leaves out a part of the vocabulary may add an estimate of the rest, with a gradient
        of the right expectation over the sampled tokens.

        Args:
            student: as in `divergence`.
            teacher: as in `divergence`.
            tokens: int64 [T]. The sampled tokens.
        """
        return self.divergence(student, teacher)

    def coefficient(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] >= 0, the factor of the divergence of each token; 1 by default."""
        return torch.ones(batch.response_mask.shape, device=batch.response_mask.device)

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L]; 0 by default, which gives no policy gradient."""
        return torch.zeros(batch.response_mask.shape, device=batch.response_mask.device)
