"""Objectives that credit a token with the log-ratios of later tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.objectives.base import DirectObjective, Objective
from fireopd.reductions import kl
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio

__all__ = ["BoundedReturnToGo", "ReturnToGo", "SingleStepReturnToGo"]


@dataclass(frozen=True)
class ReturnToGo(Objective):
    """Discounted sum of the log-ratios from a token to the end of its response.

    A_t = sum_{i >= t} discount^(i - t) r_i with the log-ratio r_i. A discount of 0 is plain OPD, whose gradient holds
    the later states fixed; the expected gradient for a discount of 1 is that of KL(student || teacher) of whole
    responses. With `length_normalization`, the sum is divided by sum_{i >= t} discount^(i - t), as in MiniLLM.
    """

    discount: float = 0.99
    """Factor of each further token, in [0, 1]."""
    length_normalization: bool = False
    """Divide each sum by the sum of its factors, so that tokens far from the end have no larger advantages."""

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_discount(self.discount)

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return returns_to_go(log_ratio(batch), batch.response_mask, self.discount, self.length_normalization)


@dataclass(frozen=True)
class BoundedReturnToGo(Objective):
    """Bounded discounted return plus the verdict: gammaOPD (arXiv 2609.16937).

    `A_t = G_t / (mean |G| + |G_t|) + R`. G_t is the return of `ReturnToGo`, the mean is over the response, and R is 1
    for correct responses and -1 for incorrect ones. The first term is in (-1, 1), so that the verdict decides the sign
    of the advantage and the teacher its size. The paper calls this reward-compatible bounded mixing; without it,
    gammaOPD is `ReturnToGo`.
    """

    discount: float = 0.99
    """Gamma of the paper: factor of each further token, in [0, 1]."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_discount(self.discount)

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L], in (-2, 0) or (0, 2)."""
        returns = returns_to_go(log_ratio(batch), batch.response_mask, self.discount, False)
        typical = reductions.row_mean(returns.abs(), batch.response_mask)[:, None]
        bounded = torch.where(typical > 0, returns / (typical + returns.abs()), 0.0)
        return bounded + torch.where(batch.rewards > self.threshold, 1.0, -1.0)[:, None]


@dataclass(frozen=True)
class SingleStepReturnToGo(DirectObjective):
    """Reverse KL at each state plus the return of the later tokens: MiniLLM (arXiv 2306.08543, section 2.2).

    The divergence is KL(student || teacher) over the whole vocabulary, the expectation of the token's own log-ratio.
    The advantage is sum_{i > t} discount^(i - t) r_i, divided by the sum of its factors with `length_normalization`.
    Expected gradient for a discount of 1 without normalisation: that of KL(student || teacher) of whole responses. TRL
    counts the token's own log-ratio in both parts. The paper's teacher-mixed sampling and its language-modelling loss
    on pre-training text are not part of this objective.
    """

    discount: float = 1.0
    """Factor of each further token, in [0, 1]; 1 in the paper, and 0 leaves the reverse KL alone."""
    length_normalization: bool = True
    """Divide each sum by the sum of its factors."""

    requires = frozenset({"teacher_logprobs", "student_logprobs"})
    by_trajectory = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_discount(self.discount)

    def advantage(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: the return of the later tokens, 0 at the last token."""
        returns = returns_to_go(log_ratio(batch), batch.response_mask, self.discount, self.length_normalization)
        normalized = self.length_normalization and self.discount > 0
        following = unpacked(later(packed(returns, batch.response_mask)), batch.response_mask)
        return following * (1.0 if normalized else self.discount)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return float [T]: KL(student || teacher)."""
        return kl(student, teacher)


def returns_to_go(values: Tensor, mask: Tensor, discount: float, normalized: bool) -> Tensor:
    """Return float [N, L]: sum_{i >= t} discount^(i - t) of float [N, L] `values` over bool [N, L] `mask`.

    The sums double in length with each pass, so that log2(L) passes suffice and the padding changes no digit. Tokens
    off the mask are no steps of the discount, wherever they are.

    Args:
        values: values of the tokens; those off the mask are ignored.
        mask: tokens of each row.
        discount: factor of each further token, in [0, 1].
        normalized: whether to divide by the sum of the factors.
    """
    sums = packed(torch.where(mask, values, 0.0), mask)
    factors = packed(mask.to(sums.dtype), mask)
    reach, longest = 1, values.shape[-1]
    while reach < longest and discount**reach > 0:
        sums, factors = (x + discount**reach * later(x, reach) for x in (sums, factors))
        reach *= 2
    return unpacked(torch.where(factors > 0, sums / factors, 0.0) if normalized else sums, mask)


def packed(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N, L] values with those of bool [N, L] `mask` first in each row, in their order."""
    return values.gather(-1, _masked_first(mask))


def unpacked(values: Tensor, mask: Tensor) -> Tensor:
    """Return float [N, L] values of `packed` at their former places, 0 off the mask."""
    return torch.where(mask, torch.zeros_like(values).scatter(-1, _masked_first(mask), values), 0.0)


def _masked_first(mask: Tensor) -> Tensor:
    return mask.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)


def later(values: Tensor, distance: int = 1) -> Tensor:
    """Return float [N, L]: the value `distance` tokens later, 0 beyond the end."""
    return torch.nn.functional.pad(values, (0, distance))[:, distance:]


def check_discount(discount: float) -> None:
    """Raise `ValueError` unless the setting `discount` is in [0, 1]."""
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {discount}")
