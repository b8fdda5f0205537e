"""Filters by reward."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch
from fireopd.types.log_ratio import log_ratio
from fireopd.types.row_uniforms import row_uniforms

__all__ = ["AgreementFilter", "BalanceFilter", "VerdictFilter"]


@dataclass(frozen=True)
class VerdictFilter(TrajectoryFilter):
    """Keeps only correct or only incorrect responses, as a control: learning from success or from failure."""

    keep: Literal["correct", "incorrect"] = "correct"
    """Kept responses."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    requires = frozenset({"rewards"})

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        correct = batch.rewards > self.threshold
        return correct if self.keep == "correct" else ~correct

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the reward of each trajectory and the threshold."""
        wanted = f"{'above' if self.keep == 'correct' else 'at most'} {self.threshold:g}"
        return [f"reward {reward:g}, wanted {wanted}" for reward in batch.rewards.tolist()]


@dataclass(frozen=True)
class AgreementFilter(TrajectoryFilter):
    """Keeps trajectories on which verifier and teacher agree: the gate of RG-OPD (arXiv 2607.04037).

    A response with a reward above its group's mean is kept if its log-probability under the teacher exceeds that under
    the student; any other response, if it is below. Log-probabilities are summed over the response. With one response
    per prompt, no response is above its group's mean. This is the paper's form; the default of the released code
    decides for each token (`AgreementWeighter`).
    """

    margin: float = 0.0
    """Delta of the paper: minimum difference of the log-probabilities, nats per response, at least 0."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})
    needs_groups = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        gap, better = self._gap(batch), self._better(batch)
        return torch.where(better, gap > self.margin, gap < -self.margin)

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the reward relative to the group, and the difference of log-probabilities, of each trajectory."""
        pairs = zip(self._better(batch).tolist(), self._gap(batch).tolist(), strict=True)
        return [
            f"{'better' if b else 'no better'} than its group, teacher - student {gap:+.3g} nats" for b, gap in pairs
        ]

    def _gap(self, batch: ScoredBatch) -> Tensor:
        return torch.where(batch.response_mask, log_ratio(batch), 0.0).sum(-1)

    def _better(self, batch: ScoredBatch) -> Tensor:
        return reductions.standardized(batch.rewards, batch.groups) > 0


@dataclass(frozen=True)
class BalanceFilter(TrajectoryFilter):
    """Keeps equal numbers of correct and incorrect responses: Uni-OPD (arXiv 2605.03677).

    The more frequent kind is subsampled. If all responses are correct, or all incorrect, all are kept.
    """

    scope: Literal["group", "batch"] = "group"
    """Balance the responses to each prompt, or all responses of the batch."""
    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""
    seed: int = 0
    """Seed of the subsampling, which also depends on the step and the tokens, but not on the order of rows."""

    requires = frozenset({"rewards"})

    @property
    def needs_groups(self) -> bool:
        """True for the scope `group`."""
        return self.scope == "group"

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]; responses with equal tokens are kept or dropped together."""
        correct, drawn = batch.rewards > self.threshold, row_uniforms(batch, self, self.seed)
        keep = torch.ones_like(batch.finished)
        groups = batch.groups if self.scope == "group" else torch.zeros_like(batch.groups)
        for group in groups.unique():
            good, bad = correct & (groups == group), ~correct & (groups == group)
            few, many = sorted((good, bad), key=lambda kind: int(kind.sum()))
            number = int(few.sum())
            if number > 0:
                keep &= ~many | (drawn <= drawn[many].sort().values[number - 1])
        return keep
