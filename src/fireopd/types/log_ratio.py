"""Log-ratio of teacher to student at the sampled tokens, and REOPOLD's floor of it."""

import math
from typing import Literal

from torch import Tensor

from fireopd.types.scores import ScoredBatch

__all__ = ["FloorFormula", "floor_of", "log_ratio"]

FloorFormula = Literal["scaled", "logit"]
"""Formula of REOPOLD's floor: log(mixing) / (1 - mixing), or log(mixing / (1 - mixing))."""


def log_ratio(batch: ScoredBatch) -> Tensor:
    """Return float32 [N, L]: log teacher - log student of each sampled token, nats."""
    return batch.teacher_logprobs - batch.student_logprobs


def floor_of(mixing: float, formula: FloorFormula) -> float:
    """Return the floor of the log-ratio for a mixing in (0, 1), nats (REOPOLD, arXiv 2603.11137)."""
    return math.log(mixing) / (1 - mixing) if formula == "scaled" else math.log(mixing / (1 - mixing))
