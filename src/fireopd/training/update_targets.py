"""Training targets, computed before or during the update.

The student scores a batch before the update if a strategy compares trajectories by student signals, or if there are
several updates on a batch. Otherwise the forward pass of the single update gives the same signals, which saves one
forward pass over the batch; the student then scores the kept trajectories only.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.method import Method
from fireopd.types import ScoredBatch, TokenScores
from fireopd.types.targets import Targets

__all__ = ["MicroBatchTargets", "PrecomputedTargets", "UpdateTargets", "update_targets"]


class UpdateTargets(ABC):
    """Targets of one global batch for its updates."""

    during_update: bool
    """True if the forward passes of the update give the student signals."""

    def __init__(self, method: Method, batch: ScoredBatch, keep: Tensor) -> None:
        """Store method, batch of N trajectories, and bool [N] `keep`, True for kept trajectories."""
        self.method, self.batch, self.keep = method, batch, keep

    @property
    def needs_entropy(self) -> bool:
        """True if the forward passes of the update have to give the student's entropy."""
        return self.during_update and "student_entropy" in self.method.requires

    @abstractmethod
    def of_rows(self, rows: Tensor, scores: TokenScores) -> tuple[Tensor, Targets]:
        """Return log-probabilities under the student before the update, float32 [b, l], and targets of some rows.

        Args:
            rows: int64 [b]. Indices into the global batch.
            scores: scores of these rows under the student, [b, l].
        """

    @abstractmethod
    def complete(self) -> tuple[ScoredBatch, Targets]:
        """Return batch and targets after the update, with all student signals. Every rank must call."""

    def has_weight(self, rows: Tensor) -> bool:
        """Return whether any token of int64 rows has a weight, after their forward passes. Every rank must call."""
        return bool(self.complete()[1].weight[rows].any())


class PrecomputedTargets(UpdateTargets):
    """Targets computed before the update, from a batch that the student has scored."""

    during_update = False

    def __init__(self, method: Method, batch: ScoredBatch, targets: Targets, *, single: bool) -> None:
        """Store method, batch and targets, and whether this is the only update of the batch."""
        super().__init__(method, batch, targets.keep)
        self.targets, self.single = targets, single

    def of_rows(self, rows: Tensor, scores: TokenScores) -> tuple[Tensor, Targets]:
        """Return log-probabilities before the update, and the rows of the stored targets.

        The scores of a single update are those before it. Those of the earlier pass come from other micro-batches, and
        differ in bfloat16: the ratio would not be 1, and the clip would drop tokens.
        """
        width = scores.logprobs.shape[1]
        old = scores.logprobs.detach() if self.single else self.batch.student_logprobs[rows, :width]
        return old, self.targets.select(rows, width)

    def complete(self) -> tuple[ScoredBatch, Targets]:
        """Return batch and targets as they were before the update."""
        return self.batch, self.targets


class MicroBatchTargets(UpdateTargets):
    """Targets computed for each micro-batch of the update, from the student signals of its forward pass."""

    during_update = True

    def __init__(self, method: Method, batch: ScoredBatch) -> None:
        """Filter a batch that the student has not scored."""
        super().__init__(method, batch, method.keep(batch))
        self.signals: dict[str, Tensor] = {}

    def of_rows(self, rows: Tensor, scores: TokenScores) -> tuple[Tensor, Targets]:
        """Compute the targets from the scores, and store the scores."""
        width = scores.logprobs.shape[1]
        own = {name: value.detach().float() for name, value in replace(scores, comparisons={}).named("student").items()}
        for name, value in own.items():
            stored = self.signals.setdefault(name, torch.zeros(self.batch.tokens.shape, device=value.device))
            stored[rows, :width] = value
        part = self.batch.select(rows.tolist(), width)
        scored = replace(part, signals={**part.signals, **own})
        return scores.logprobs.detach(), self.method.targets(scored, self.keep[rows])

    def complete(self) -> tuple[ScoredBatch, Targets]:
        """Sum the stored scores over the ranks, and compute the targets of the whole batch."""
        names = sorted({"student_logprobs", *(self.method.requires & {"student_entropy"})})
        like = self.batch.tokens
        stored = {name: self.signals.get(name, torch.zeros(like.shape, device=like.device)) for name in names}
        # Each rank holds its own rows, and zeros elsewhere.
        summed = {name: collectives.all_reduce_sum(value) for name, value in stored.items()}
        scored_rows = None if self.keep.all() else self.keep
        batch = replace(self.batch, signals={**self.batch.signals, **summed}, student_scored=scored_rows)
        return batch, self.method.targets(batch, self.keep)


def update_targets(method: Method, batch: ScoredBatch, *, usable: bool, single: bool) -> UpdateTargets:
    """Return the targets of a global batch.

    Args:
        method: filters the batch and computes the targets.
        batch: N trajectories.
        usable: False if signals are invalid; no trajectory is kept then.
        single: True if the batch gets one update.
    """
    if not usable:
        return PrecomputedTargets(method, batch, Targets.nothing(batch), single=single)
    if "student_logprobs" in batch.signals:
        return PrecomputedTargets(method, batch, method.targets(batch), single=single)
    return MicroBatchTargets(method, batch)
