"""Weighters that choose: weight 1 for some tokens of the batch, 0 for all others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.log_ratio import FloorFormula, floor_of, log_ratio
from fireopd.types import ScoredBatch
from fireopd.weighters.base import TokenWeighter
from fireopd.weighters.entropy import EntropyWeighter


@dataclass(frozen=True)
class HardEntropyWeighter(EntropyWeighter):
    """The tokens to which FiRe-OPD would give most weight, and no others: the hard form of its ablations."""

    share: float = 0.5
    """Share of the response tokens of the batch that are chosen, in (0, 1]; ties are chosen together."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        check_share(self.share)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        return reductions.top(super().__call__(batch), batch.response_mask, self.share).float()


@dataclass(frozen=True)
class UncertainOrDivergentWeighter(TokenWeighter):
    """The tokens at which the student is uncertain, or far from its teacher: the selection of TIP (arXiv 2604.14084).

    h + d - h d, h being the student's entropy and d KL(student || teacher), both brought to [0, 1] over the batch.
    The paper's loss is a mean over the chosen tokens: use `normalization: batch`.
    """

    share: float = 0.5
    """Share of the response tokens of the batch that are chosen, in (0, 1]; ties are chosen together."""

    requires = frozenset({"student_entropy", "reverse_kl"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        uncertain = reductions.min_max(batch.student_entropy, batch.response_mask)
        divergent = reductions.min_max(batch.reverse_kl, batch.response_mask)
        score = uncertain + divergent - uncertain * divergent
        return reductions.top(score, batch.response_mask, self.share).float()


@dataclass(frozen=True)
class PhasedEntropyWeighter(TokenWeighter):
    """First the tokens that the teacher does not reject, later the uncertain ones: REOPOLD (arXiv 2603.11137).

    Before the switch, tokens of a log-ratio of at least the floor of `FlooredReverseKL`; after it, those with the
    student's greatest entropies. The paper's loss is a mean over the chosen tokens: use `normalization: batch`.
    """

    switch_step: int = 50
    """Optimizer step from which on entropies decide; 0 for all of the run."""
    share: float = 0.2
    """Beta of the paper: share of the response tokens of the batch that are chosen then, in (0, 1]."""
    mixing: float = 0.1
    """As in `FlooredReverseKL`, in (0, 1)."""
    floor: FloorFormula = "scaled"
    """As in `FlooredReverseKL`."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "student_entropy"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)
        if not 0 < self.mixing < 1:
            raise ValueError(f"mixing must be in (0, 1), got {self.mixing}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        if batch.policy_version >= self.switch_step:
            return reductions.top(batch.student_entropy, batch.response_mask, self.share).float()
        return (log_ratio(batch) >= floor_of(self.mixing, self.floor)).float()


@dataclass(frozen=True)
class TeachabilityWeighter(TokenWeighter):
    """The tokens with something to learn that the student can take up: TA-OPD (arXiv 2605.26844).

    d c, d being KL(student || teacher) and c the teacher's mass on the student's `model.top_k` likeliest tokens, each
    scaled so that its 5 % and 95 % quantiles over the batch become 0 and 1, and cut there; 1 where both are equal. The
    loss of the paper is a mean over the chosen tokens: use `normalization: batch`.
    """

    share: float = 0.05
    """Share of the response tokens of the batch that are chosen, in (0, 1]; ties are chosen together."""
    tail: float = 0.05
    """Share of the values that is cut at either end, in [0, 0.5)."""

    requires = frozenset({"reverse_kl", "student_topk_mass"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)
        if not 0 <= self.tail < 0.5:
            raise ValueError(f"tail must be in [0, 0.5), got {self.tail}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        score = self._scaled(batch.reverse_kl, batch) * self._scaled(batch.student_topk_mass, batch)
        return reductions.top(score, batch.response_mask, self.share).float()

    def _scaled(self, values: Tensor, batch: ScoredBatch) -> Tensor:
        low, high = (reductions.quantile(values, batch.response_mask, q) for q in (self.tail, 1 - self.tail))
        return torch.where(high > low, ((values - low) / (high - low)).clamp(0, 1), 1.0)


def check_share(share: float) -> None:
    """Raise `ValueError` if a share is not in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
