"""fireopd: on-policy distillation with pluggable trajectory filters and token weighters."""

from fireopd.errors import UserError
from fireopd.filters import TrajectoryFilter
from fireopd.method import Method
from fireopd.objectives import DirectObjective, Objective
from fireopd.types import Prompt, Response, RolloutBatch, ScoredBatch, Targets, TokenScores
from fireopd.weighters import TokenWeighter

__all__ = [
    "DirectObjective",
    "Method",
    "Objective",
    "Prompt",
    "Response",
    "RolloutBatch",
    "ScoredBatch",
    "Targets",
    "TokenScores",
    "TokenWeighter",
    "TrajectoryFilter",
    "UserError",
]
