"""Direct objectives on some likely tokens in place of the whole vocabulary."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.reductions import kl

Support = Literal["teacher", "student", "intersection", "union"]
"""Whose likeliest tokens: those of one model, of both, or of either."""
Mass = Literal["both", "teacher", "plain", "tail"]
"""What becomes of the mass on the support: brought to 1 in both models, in the teacher alone, left as it is, or left
as it is with all other tokens as one more."""

SMALLEST_TAIL = 1e-8
"""Probability of the other tokens together, at least."""
SMALLEST = -1e4
"""Log-probability of a token in the mass of several, at least, nats."""


@dataclass(frozen=True)
class TopKDivergence(DirectObjective):
    """A divergence on the likeliest tokens alone: LSM (arXiv 2603.25562), and its relatives (arXiv 2604.13016).

    Sum over the support of p (log p - log q). The default is LSM's: reverse, on the teacher's tokens, both brought to
    mass 1 there; differentiated, as the paper reads (its code takes it for an advantage). With a tail, the other tokens
    count as one more, and the divergence is a lower bound of that over the whole vocabulary.
    """

    top_k: int = 32
    """Tokens that count as likely, at most the whole vocabulary."""
    direction: Literal["reverse", "forward"] = "reverse"
    """p is the student and q the teacher, or the other way round."""
    support: Support = "teacher"
    """Whose likeliest tokens."""
    mass: Mass = "both"
    """`both`: each model's mass on the support is brought to 1; `teacher`: the teacher's; `plain`: neither's; `tail`:
    neither's, and the other tokens are one more."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]."""
        chosen = likely_tokens(student, teacher, self.top_k, self.support)
        p, q = on_support(student, teacher, chosen, self.mass)
        return kl(p, q) if self.direction == "reverse" else kl(q, p)


def likely_tokens(student: Tensor, teacher: Tensor, top_k: int, support: Support) -> Tensor:
    """Return bool [T, V]: the likeliest tokens of log-distributions [T, V]."""
    size = min(top_k, student.shape[-1])
    own, other = (
        torch.zeros_like(x, dtype=torch.bool).scatter_(-1, x.topk(size).indices, True)
        for x in (student.detach(), teacher)
    )
    return {"student": own, "teacher": other, "intersection": own & other, "union": own | other}[support]


def on_support(student: Tensor, teacher: Tensor, chosen: Tensor, mass: Mass) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of student and teacher, minus infinity off bool [T, V] `chosen`.

    With a tail, float [T, V + 1], the last of them being that of the other tokens.
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
    """Return float [T, 1]: the log of the probability of bool [T, V] `chosen` together; 0 where nothing is chosen."""
    kept = torch.where(chosen, log_distribution.clamp(min=SMALLEST), -torch.inf)
    return torch.where(chosen.any(-1, keepdim=True), kept, 0.0).logsumexp(-1, keepdim=True) * chosen.any(
        -1, keepdim=True
    )
