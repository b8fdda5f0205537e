"""What the update of a rollout batch goes by: targets that were made before it, or are made as the student is read.

The student has to be read before an update if a strategy compares trajectories by what it says, or if there are several
updates on a batch. Otherwise the forward pass of the one update says the same, and a pass over the batch is saved; the
student then reads the kept trajectories alone.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.method import Method
from fireopd.types import ScoredBatch, TokenScores
from fireopd.types.targets import Targets


class Supervision:
    """The targets of one global batch, whenever they are made."""

    def __init__(self, method: Method, batch: ScoredBatch, *, void: bool) -> None:
        """Filter a batch, and make the targets if the student has read it.

        Args:
            method: makes the targets.
            batch: N trajectories.
            void: whether something is wrong with the batch, so that nothing of it is to be used.
        """
        self.method, self.batch = method, batch
        self.targets: Targets | None = None
        if void:
            self.targets = Targets.nothing(batch)
        elif "student_logprobs" in batch.signals:
            self.targets = method.targets(batch)
        self.keep = method.keep(batch) if self.targets is None else self.targets.keep
        self.read: dict[str, Tensor] = {}

    def of(self, rows: Tensor, scores: TokenScores) -> tuple[Tensor, Targets]:
        """Return log-probabilities under the student before the update, and targets, of some rows.

        Args:
            rows: int64 [b]. Of the global batch.
            scores: what the student says of them now, [b, l].
        """
        width = scores.logprobs.shape[1]
        if self.targets is not None:
            return self.batch.student_logprobs[rows, :width], self.targets.select(rows, width)
        own = {name: value.detach().float() for name, value in replace(scores, comparisons={}).named("student").items()}
        for name, value in own.items():
            place = self.read.setdefault(name, torch.zeros(self.batch.tokens.shape, device=value.device))
            place[rows, :width] = value
        part = self.batch.select(rows.tolist(), width)
        return own["student_logprobs"], self.method.targets_of(
            replace(part, signals={**part.signals, **own}), self.keep[rows]
        )

    def whole(self) -> tuple[ScoredBatch, Targets]:
        """Return batch and targets after the update, with all that the student has said. Every rank must call."""
        if self.targets is None:
            names = sorted({"student_logprobs", *(self.method.requires & {"student_entropy"})})
            read = {name: self.read.get(name, torch.zeros_like(self.batch.sampling_logprobs)) for name in names}
            # Each rank has written its own rows, and zeros elsewhere.
            signals = {
                **self.batch.signals,
                **{name: collectives.all_reduce_sum(value) for name, value in read.items()},
            }
            self.batch = replace(self.batch, signals=signals, student_scored=None if self.keep.all() else self.keep)
            self.targets = self.method.targets_of(self.batch, self.keep)
        return self.batch, self.targets
