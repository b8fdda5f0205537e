"""Selection of the tokens on which student and teacher disagree, or on which the teacher accepts the student."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio
from fireopd.weighters.base import TokenWeighter
from fireopd.weighters.token_selection import check_share

__all__ = ["AcceptedProposalWeighter", "DisagreementWeighter"]


@dataclass(frozen=True)
class DisagreementWeighter(TokenWeighter):
    """Selects the tokens of each response on which the models disagree most: DIAL-OPD (arXiv 2610.11659).

    The score is `|r|^(1 - exponent) |q - p|^exponent` with the log-ratio r and the probabilities p of the student and q
    of the teacher. An exponent of 0 ranks by the log-ratio, 1 by the difference of the probabilities; larger exponents
    rank tokens lower that both models find unlikely. Selects max(1, round(share n)) of the n tokens of each response.
    The loss is a mean over the selected tokens: use `normalization: batch`.
    """

    share: float = 0.4
    """Rho of the paper: fraction of the tokens of each response to select, in (0, 1]; ties are selected together."""
    exponent: float = 1.0
    """Beta of the paper, at least 0; its runs use 1 and 1.2."""

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)
        if not self.exponent >= 0:
            raise ValueError(f"exponent must be at least 0, got {self.exponent}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        gap = log_ratio(batch).double().abs()
        larger = torch.maximum(batch.teacher_logprobs, batch.student_logprobs).double()
        # log of |q - p| / |r|, the logarithmic mean of the two probabilities; both factors vanish for r = 0
        log_mean = larger + (-torch.expm1(-gap)).log() - gap.log()
        score = torch.where(gap > 0, self.exponent * log_mean + gap.log(), -torch.inf)
        numbers = (self.share * batch.lengths.double()).round().long()
        return reductions.row_top(score, batch.response_mask, numbers).float()


@dataclass(frozen=True)
class AcceptedProposalWeighter(TokenWeighter):
    """Full weight where the teacher accepts the student's likeliest token: SelecTKD (arXiv 2510.24021).

    The weight is 1 at states at which the student's likeliest token is among the teacher's `top_k` likeliest ones, and
    `rejected` at all others. This is the paper's greedy form; its sampled form (Spec-k) is not included. The paper does
    not normalise the weights: use `normalization: none`.
    """

    top_k: int = 5
    """Number of the teacher's likeliest tokens that it accepts, at least 1."""
    rejected: float = 0.01
    """Beta of the paper: weight of all other tokens, at least 0."""

    requires = frozenset({"teacher_rank"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not self.rejected >= 0:
            raise ValueError(f"rejected must be at least 0, got {self.rejected}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or `rejected`."""
        return torch.where(batch.teacher_rank <= self.top_k, 1.0, self.rejected)
