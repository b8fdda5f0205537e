"""Objectives: what the student is asked to move towards. Entry-point group: `fireopd.objectives`.

An objective gives each sampled token an advantage, detached; the loss is a policy gradient. The estimators that go
wrong when they are differentiated directly (k1 has zero expected gradient, k3 that of the forward divergence) cannot
be written down here.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from fireopd.signals import Strategy
from fireopd.types import ScoredBatch


class Objective(Strategy, ABC):
    """Says how good each sampled token was."""

    setting = "model.objective"
    check = "check_objective"

    @abstractmethod
    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float [N, L] in nats: positive raises the token's probability."""


@dataclass(frozen=True)
class ReverseKL(Objective):
    """Minimises KL(student || teacher) at every state that the student visits: the objective of OPD and of FiRe-OPD.

    A_t = log teacher(y_t) - log student(y_t). Expected gradient: that of the reverse KL at each state, the states held
    fixed (arXiv 2606.02684, section 3; thinkingmachines.ai, On-Policy Distillation).
    """

    requires = frozenset({"teacher_logprobs", "student_logprobs"})

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return batch.teacher_logprobs - batch.student_logprobs
