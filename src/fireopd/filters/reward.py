"""Filtering by the verifier's grade, and by whether it agrees with the teacher."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch
from fireopd.types.row_uniforms import row_uniforms


@dataclass(frozen=True)
class VerdictFilter(TrajectoryFilter):
    """Keeps correct responses alone, or incorrect ones alone: the controls that learn from success or from failure."""

    keep: Literal["correct", "incorrect"] = "correct"
    """Which responses to keep."""
    threshold: float = 0.5
    """Responses of a greater reward count as correct."""

    requires = frozenset({"rewards"})

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        correct = batch.rewards > self.threshold
        return correct if self.keep == "correct" else ~correct

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the reward of each trajectory beside the threshold."""
        wanted = f"{'above' if self.keep == 'correct' else 'at most'} {self.threshold:g}"
        return [f"reward {reward:g}, wanted {wanted}" for reward in batch.rewards.tolist()]


@dataclass(frozen=True)
class AgreementFilter(TrajectoryFilter):
    """Keeps trajectories about which verifier and teacher agree: the gate of RG-OPD (arXiv 2607.04037).

    A response that is better than the mean of its group is kept if the teacher finds it likelier than the student does;
    any other, if it finds it less likely. Log-probabilities are summed over the response. With one response to each
    prompt none is better than its group.
    """

    margin: float = 0.0
    """Delta of the paper: how much likelier or less likely it has to be, nats a response, at least 0."""

    requires = frozenset({"teacher_logprobs", "student_logprobs", "rewards"})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        gap, better = self._gap(batch), self._better(batch)
        return torch.where(better, gap > self.margin, gap < -self.margin)

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the two verdicts on each trajectory."""
        verdicts = zip(self._better(batch).tolist(), self._gap(batch).tolist(), strict=True)
        return [
            f"{'better' if b else 'no better'} than its group, teacher - student {gap:+.3g} nats" for b, gap in verdicts
        ]

    def _gap(self, batch: ScoredBatch) -> Tensor:
        return torch.where(batch.response_mask, batch.teacher_logprobs - batch.student_logprobs, 0.0).sum(-1)

    def _better(self, batch: ScoredBatch) -> Tensor:
        return reductions.standardized(batch.rewards, batch.groups) > 0


@dataclass(frozen=True)
class BalanceFilter(TrajectoryFilter):
    """Keeps as many correct responses as incorrect ones, drawn from the more frequent kind: Uni-OPD (arXiv 2605.03677).

    Where all responses are correct, or none, all are kept.
    """

    scope: Literal["group", "batch"] = "group"
    """Balance the responses to each prompt, or all of the batch."""
    threshold: float = 0.5
    """Responses of a greater reward count as correct."""
    seed: int = 0
    """Decides, with the step and the trajectories' tokens, what is drawn; the order of rows does not matter."""

    requires = frozenset({"rewards"})

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]; responses that are alike token for token are kept or dropped together."""
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
