"""Token selection: weight 1 for selected tokens of the batch, 0 for all others."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import FloorFormula, floor_of, log_ratio
from fireopd.weighters.base import TokenWeighter
from fireopd.weighters.entropy import EntropyWeighter

__all__ = [
    "AgreementWeighter",
    "HardEntropyWeighter",
    "PhasedEntropyWeighter",
    "TeachabilityWeighter",
    "UncertainOrDivergentWeighter",
    "UncertainTokenWeighter",
    "UnlikelyTokenWeighter",
]


@dataclass(frozen=True)
class HardEntropyWeighter(EntropyWeighter):
    """Selects the tokens with the largest FiRe-OPD weights: the hard form of its ablations (arXiv 2606.02684)."""

    share: float = 0.5
    """Fraction of the response tokens of the batch to select, in (0, 1]; ties are selected together."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        check_share(self.share)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        return reductions.top(super().__call__(batch), batch.response_mask, self.share).float()


@dataclass(frozen=True)
class UncertainOrDivergentWeighter(TokenWeighter):
    """Selects tokens at which the student is uncertain or far from its teacher: TIP (arXiv 2604.14084).

    The score is h + d - h d with the student's entropy h and d = KL(student || teacher), both scaled to [0, 1] over the
    batch. The paper's loss is a mean over the selected tokens: use `normalization: batch`.
    """

    share: float = 0.5
    """Fraction of the response tokens of the batch to select, in (0, 1]; ties are selected together."""

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
    """Selects by log-ratio first, by the student's entropy later: REOPOLD (arXiv 2603.11137).

    Before the switch, selects tokens with a log-ratio of at least the floor of `FlooredReverseKL`; after it, the tokens
    with the largest student entropies. The paper's loss is a mean over the selected tokens: use `normalization: batch`.
    """

    switch_step: int = 50
    """Optimizer step of the switch to entropies; 0 for entropies during the whole run."""
    share: float = 0.2
    """Beta of the paper: fraction of the response tokens of the batch to select after the switch, in (0, 1]."""
    mixing: float = 0.1
    """Mixing of the floor, as in `FlooredReverseKL`, in (0, 1)."""
    floor: FloorFormula = "scaled"
    """Formula of the floor, as in `FlooredReverseKL`."""

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
    """Selects tokens with a large divergence that the student can reduce: TA-OPD (arXiv 2605.26844).

    The score is d c with d = KL(student || teacher) and the teacher's mass c on the student's `model.top_k` likeliest
    tokens. Each is scaled so that its 5 % and 95 % quantiles over the batch become 0 and 1, clipped to [0, 1], and set
    to 1 if the quantiles are equal. The paper's loss is a mean over the selected tokens: use `normalization: batch`.

    The released code differs (`form: released`): d is KL(teacher || student) with each model truncated to its
    `model.top_k` likeliest tokens, a factor with equal quantiles is 0, ceil(share n) tokens are selected, and at least
    one token of each response, here the first of those with its best score. The release breaks ties by position, and
    fills responses by another score, which includes the entropy.
    """

    share: float = 0.05
    """Fraction of the response tokens of the batch to select, in (0, 1]; ties are selected together."""
    tail: float = 0.05
    """Fraction of the values clipped at either end, in [0, 0.5)."""
    form: Literal["paper", "released"] = "paper"
    """Divergence and selection of the paper or of the released code."""

    @property
    def requires(self) -> frozenset[str]:
        """The mass on the student's top-k tokens, and the divergence that the form selects."""
        return frozenset({"student_topk_mass", "reverse_kl" if self.form == "paper" else "topk_forward_kl"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)
        if not 0 <= self.tail < 0.5:
            raise ValueError(f"tail must be in [0, 0.5), got {self.tail}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        divergence, mask = batch.reverse_kl if self.form == "paper" else batch.topk_forward_kl, batch.response_mask
        score = self._scaled(divergence, mask) * self._scaled(batch.student_topk_mass, mask)
        if self.form == "paper":
            return reductions.top(score, mask, self.share).float()
        chosen = reductions.lowest(-score, mask, max(1, math.ceil(self.share * int(mask.sum()))))
        best = mask & (score == torch.where(mask, score, -torch.inf).amax(-1, keepdim=True))
        first = best & (best.cumsum(-1) == 1)
        return (chosen | first & ~chosen.any(-1, keepdim=True)).float()

    def _scaled(self, values: Tensor, mask: Tensor) -> Tensor:
        low, high = (reductions.quantile(values, mask, q) for q in (self.tail, 1 - self.tail))
        constant = 1.0 if self.form == "paper" else 0.0
        return torch.where(high > low, ((values - low) / (high - low)).clamp(0, 1), constant)


@dataclass(frozen=True)
class AgreementWeighter(TokenWeighter):
    """Selects tokens on which verifier and teacher agree: the gate of RG-OPD as released (arXiv 2607.04037).

    Selects tokens with a log-ratio above the margin in responses with a reward above their group's mean, and tokens
    with a log-ratio below minus the margin in responses with a reward below it. Responses at the mean are not selected,
    in particular all responses of a group with equal rewards. `AgreementFilter` is the gate of the paper: one decision
    for a trajectory, and responses at the mean count as failures. The loss is a mean over the selected tokens: use
    `normalization: batch`.
    """

    margin: float = 0.0
    """Minimum absolute value of the log-ratio, nats per token, at least 0."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})
    needs_groups = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        side = reductions.standardized(batch.rewards, batch.groups).sign()[:, None]
        return ((side != 0) & (side * log_ratio(batch) > self.margin)).float()


@dataclass(frozen=True)
class UncertainTokenWeighter(TokenWeighter):
    """Selects the tokens with the largest entropies of the student: `entropy_top_ratio` of Teacher-TopK.

    Selects max(1, floor(share n)) of the n tokens of each response, or of the batch. The flags in the released README
    of LSM (arXiv 2603.25562) select the fifth of the tokens of each response; the choice of the student's entropy and
    the rounding are ours. The loss is a mean over the selected tokens: use `normalization: batch`.
    """

    share: float = 0.2
    """Fraction of the response tokens to select, in (0, 1]; ties are selected together."""
    scope: Literal["trajectory", "batch"] = "trajectory"
    """Select among the tokens of each response, or of the whole batch."""

    requires = frozenset({"student_entropy"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)

    @property
    def by_trajectory(self) -> bool:
        """True for the scope `trajectory`."""
        return self.scope == "trajectory"

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        if self.scope == "batch":
            number = max(1, math.floor(self.share * int(batch.lengths.sum())))
            return reductions.lowest(-batch.student_entropy, batch.response_mask, number).float()
        numbers = (self.share * batch.lengths.double()).long()
        return reductions.row_top(batch.student_entropy, batch.response_mask, numbers).float()


@dataclass(frozen=True)
class UnlikelyTokenWeighter(TokenWeighter):
    """Selects the tokens that are least likely under the student: the selection of OPSA (arXiv 2608.31046).

    Selects max(1, floor(share n)) of the n response tokens of the batch. The released code selects on each process,
    and breaks ties by position. The loss is a mean over the selected tokens: use `normalization: batch`.
    """

    share: float = 0.2
    """Fraction of the response tokens of the batch to select, in (0, 1]; ties are selected together."""

    requires = frozenset({"student_logprobs"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        check_share(self.share)

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]: 1 or 0."""
        number = max(1, math.floor(self.share * int(batch.lengths.sum())))
        return reductions.lowest(batch.student_logprobs, batch.response_mask, number).float()


def check_share(share: float) -> None:
    """Raise `ValueError` unless the setting `share` is in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
