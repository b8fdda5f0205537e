"""Objectives."""

from dataclasses import dataclass

from torch import Tensor

from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch


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
