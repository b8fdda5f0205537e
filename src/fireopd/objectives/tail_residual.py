"""Direct objective: divergence on the likeliest tokens, corrected by the sampled token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.objectives.base import DirectObjective
from fireopd.objectives.topk_divergence import SMALLEST, SMALLEST_TAIL, likely_tokens, on_support
from fireopd.reductions import kl

__all__ = ["TailResidualKL"]


@dataclass(frozen=True)
class TailResidualKL(DirectObjective):
    """Reverse KL on the teacher's likeliest tokens, and a sampled correction for all others: ResOPD (arXiv 2610.04882).

    The divergence counts all tokens outside the support S as one; it is a lower bound of the reverse KL, exact up to
    the differences within the tail. Where the sampled token y is in the tail, the gradient of
    r_y grad log p_y - log(tau_p / tau_q) grad log tau_p is added with r = log p - log q and the masses tau of the tail.
    Expected gradient: that of KL(student || teacher) over the whole vocabulary, for tokens sampled from the student.
    A teacher needs to give its top_k and the sampled token only.
    """

    top_k: int = 4
    """Number of likeliest tokens of the teacher in the support, at least 1."""

    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T] >= 0: the reverse KL with all other tokens as one."""
        return kl(*on_support(student, teacher, likely_tokens(student, teacher, self.top_k, "teacher"), "tail"))

    def estimate(self, student: Tensor, teacher: Tensor, tokens: Tensor) -> Tensor:
        """Return float [T]: the value of the divergence, with the gradient of the sampled estimate."""
        chosen = likely_tokens(student, teacher, self.top_k, "teacher")
        own, other = (x.gather(-1, tokens[:, None]).squeeze(-1).clamp(min=SMALLEST) for x in (student, teacher))
        tails = [torch.where(chosen, 0.0, x.exp()).sum(-1).clamp(min=SMALLEST_TAIL).log() for x in (student, teacher)]
        fine = (own - other).detach() * own
        coarse = (tails[0] - tails[1]).detach() * tails[0]
        in_tail = ~chosen.gather(-1, tokens[:, None]).squeeze(-1)
        residual = torch.where(in_tail, fine - coarse, 0.0)
        return self.divergence(student, teacher) + residual - residual.detach()
