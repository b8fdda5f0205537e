"""Direct objectives: divergences on the likeliest tokens."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.reductions import kl

__all__ = ["TopKDivergence", "TopKPolicyGradient", "likely_tokens", "log_mass", "on_support"]

Support = Literal["teacher", "student", "intersection", "union"]
"""Tokens that are likely under the teacher, the student, both (intersection), or either (union)."""
Mass = Literal["both", "teacher", "plain", "tail", "generalized"]
"""Normalisation of the mass on the support: to 1 in both models, to 1 in the teacher, none, none with all other tokens
as one additional token, or none with the generalised KL."""

SMALLEST_TAIL = 1e-8
"""Lower bound of the total probability of the other tokens."""
SMALLEST = -1e4
"""Lower bound of a token's log-probability in a sum over tokens, nats."""


@dataclass(frozen=True)
class TopKDivergence(DirectObjective):
    """Divergence on the likeliest tokens: LSM (arXiv 2603.25562) and variants (arXiv 2604.13016).

    Sum over the support of p (log p - log q). The default is LSM: reverse KL on the teacher's tokens, with both
    distributions normalised to mass 1 on them; the released code (Teacher-TopK) adds it as a loss, too. With
    `mass: tail`, all other tokens count as one additional token, and the divergence is a lower bound of the divergence
    over the whole vocabulary. With `mass: generalized`, the sum is over p (log p - log q) - p + q. `plain` and
    `teacher` are partial sums: they can be negative, and their gradient for equal distributions is that of the mass on
    the support. Expected gradient: that of the sum, with the support held fixed.
    """

    top_k: int = 32
    """Number of likeliest tokens, at most the whole vocabulary."""
    direction: Literal["reverse", "forward"] = "reverse"
    """`reverse`: p is the student and q the teacher; `forward`: p is the teacher and q the student."""
    support: Support = "teacher"
    """Model by which tokens count as likely: one model, both (intersection), or either (union)."""
    mass: Mass = "both"
    """Mass on the support that is normalised to 1: of both models, of the teacher, or none (`plain`). `tail`: none, and
    all other tokens count as one additional token. `generalized`: none, and the difference of the masses is added."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    @property
    def proper(self) -> bool:
        """False for `plain` and `teacher`."""
        return self.mass not in ("plain", "teacher")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]; >= 0 unless the mass is `plain` or `teacher`."""
        chosen = likely_tokens(student, teacher, self.top_k, self.support)
        p, q = on_support(student, teacher, chosen, self.mass)
        if self.direction == "forward":
            p, q = q, p
        return kl(p, q) + (q.exp() - p.exp()).sum(-1) if self.mass == "generalized" else kl(p, q)


@dataclass(frozen=True)
class TopKPolicyGradient(DirectObjective):
    """Policy gradient over the likeliest tokens instead of the sampled one, as released for arXiv 2604.13016.

    Each token v of the support has the advantage log q_v - log p_v and the weight p_v / sum_S p, both detached.
    Expected gradient: sum_S p_v / (sum_S p) (log p_v - log q_v) grad log p_v, which is 0 for equal distributions. It is
    not the gradient of the value, which is the reverse KL of the distributions normalised to mass 1 on the support. The
    release clips probability ratios, which has no effect in the first update on a rollout batch, and is not done here.
    """

    top_k: int = 16
    """Number of likeliest tokens, at most the whole vocabulary."""
    support: Support = "student"
    """Model by which tokens count as likely: one model, both (intersection), or either (union)."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T] >= 0, with the gradient of the policy."""
        chosen, constant = likely_tokens(student, teacher, self.top_k, self.support), student.detach()
        p, q = on_support(constant, teacher, chosen, "both")
        cost = p.exp() * torch.where(p > -torch.inf, constant.clamp(min=SMALLEST) - teacher.clamp(min=SMALLEST), 0.0)
        surrogate = (cost * torch.where(chosen, student.clamp(min=SMALLEST), 0.0)).sum(-1)
        return kl(p, q) + surrogate - surrogate.detach()


def likely_tokens(student: Tensor, teacher: Tensor, top_k: int, support: Support) -> Tensor:
    """Return bool [T, V], True for the likeliest tokens of log-distributions [T, V]."""
    size = min(top_k, student.shape[-1])
    of_student, of_teacher = (
        torch.zeros_like(x, dtype=torch.bool).scatter_(-1, x.topk(size).indices, True)
        for x in (student.detach(), teacher)
    )
    either, both = of_student | of_teacher, of_student & of_teacher
    return {"student": of_student, "teacher": of_teacher, "intersection": both, "union": either}[support]


def on_support(student: Tensor, teacher: Tensor, chosen: Tensor, mass: Mass) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of student and teacher, minus infinity off bool [T, V] `chosen`.

    With `tail`, float [T, V + 1]; the last column is the log-probability of all other tokens.
    """
    kept = [torch.where(chosen, x, -torch.inf) for x in (student, teacher)]
    if mass == "tail":
        tails = [torch.where(chosen, 0.0, x.exp()).sum(-1, keepdim=True) for x in (student, teacher)]
        kept = [torch.cat([x, tail.clamp(min=SMALLEST_TAIL).log()], -1) for x, tail in zip(kept, tails, strict=True)]
    if mass == "both":
        kept[0] = kept[0] - log_mass(student, chosen)
    if mass in ("both", "teacher"):
        kept[1] = kept[1] - log_mass(teacher, chosen)
    return kept[0], kept[1]


def log_mass(log_distribution: Tensor, chosen: Tensor) -> Tensor:
    """Return float [T, 1]: the log of the total probability of bool [T, V] `chosen`; 0 if no token is chosen."""
    kept = torch.where(chosen, log_distribution.clamp(min=SMALLEST), -torch.inf)
    return torch.where(chosen.any(-1, keepdim=True), kept, 0.0).logsumexp(-1, keepdim=True) * chosen.any(
        -1, keepdim=True
    )
