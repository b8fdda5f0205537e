"""Summary of a batch after the step on it, which plans observe."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from fireopd.types import ScoredBatch, Targets

__all__ = ["BatchSummary"]

SMALLEST_WEIGHT = 1e-8
"""Weights up to this value count as 0, as in the released code of Prune-OPD."""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """N trajectories of all processes, after the step on them."""

    policy_version: int
    """Optimizer steps of the weights that sampled them."""
    kept: Tensor
    """bool [N]. Trajectories that the filter kept."""
    finished: Tensor
    """bool [N]. False for responses truncated at the length limit."""
    lengths: Tensor
    """int64 [N]. Response tokens."""
    effective_lengths: Tensor
    """int64 [N]. Response tokens with a weight above 0; 0 for dropped trajectories."""
    longest: int
    """Maximum response length of the run, tokens."""
    rewards: Tensor | None = None
    """float32 [N]. Grades in [0, 1]; None unless a strategy reads them."""

    @classmethod
    def of(cls, batch: ScoredBatch, targets: Targets, longest: int) -> BatchSummary:
        """Return the summary of a global batch and its targets, on the CPU, for the longest response of the run."""
        summary = cls(
            policy_version=batch.policy_version,
            kept=targets.keep,
            finished=batch.finished,
            lengths=batch.lengths,
            effective_lengths=(targets.weight > SMALLEST_WEIGHT).sum(-1),
            longest=longest,
            rewards=batch.signals.get("rewards"),
        )
        values: dict[str, Any] = {f.name: getattr(summary, f.name) for f in fields(cls)}
        moved: dict[str, Any] = {name: v.cpu() for name, v in values.items() if isinstance(v, Tensor)}
        return replace(summary, **moved)
