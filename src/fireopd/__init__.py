"""fireopd: on-policy distillation with pluggable trajectory filters and token weighters."""

from fireopd.errors import UserError
from fireopd.filters import TrajectoryFilter
from fireopd.methods import Method
from fireopd.objectives import Objective
from fireopd.targets import Targets
from fireopd.types import Prompt, Response, RolloutBatch, ScoredBatch, TokenScores
from fireopd.weighters import TokenWeighter

__all__ = [
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
