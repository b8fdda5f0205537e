"""fireopd: on-policy distillation with pluggable trajectory filters and token weighters.

The public names are imported on first use, so that `import fireopd` costs no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fireopd import moved_paths

if TYPE_CHECKING:
    from fireopd.algorithm import fire_loss, fire_targets, importance_weights, kept, loss_fractions, normalize
    from fireopd.engines import RolloutEngine
    from fireopd.errors import UserError
    from fireopd.filters import TrajectoryFilter
    from fireopd.method import Method
    from fireopd.models.scorer import CausalScorer, score_rollouts
    from fireopd.objectives import DirectObjective, Objective
    from fireopd.plans import RolloutPlan, RowPlan
    from fireopd.prompts import PromptSource, PromptText
    from fireopd.teachers import Teacher
    from fireopd.training.data import RolloutDataModule
    from fireopd.training.module import FiReOPDModule
    from fireopd.types import Prompt, Response, RolloutBatch, Sampling, ScoredBatch, Targets, TokenScores
    from fireopd.verifiers import Verifier
    from fireopd.weighters import TokenWeighter

_MODULES = {
    "fireopd.algorithm": (
        "fire_loss",
        "fire_targets",
        "importance_weights",
        "kept",
        "loss_fractions",
        "normalize",
    ),
    "fireopd.engines": ("RolloutEngine",),
    "fireopd.errors": ("UserError",),
    "fireopd.filters": ("TrajectoryFilter",),
    "fireopd.method": ("Method",),
    "fireopd.models.scorer": ("CausalScorer", "score_rollouts"),
    "fireopd.objectives": ("DirectObjective", "Objective"),
    "fireopd.plans": ("RolloutPlan", "RowPlan"),
    "fireopd.prompts": ("PromptSource", "PromptText"),
    "fireopd.teachers": ("Teacher",),
    "fireopd.training.data": ("RolloutDataModule",),
    "fireopd.training.module": ("FiReOPDModule",),
    "fireopd.types": ("Prompt", "Response", "RolloutBatch", "Sampling", "ScoredBatch", "Targets", "TokenScores"),
    "fireopd.verifiers": ("Verifier",),
    "fireopd.weighters": ("TokenWeighter",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CausalScorer",
    "DirectObjective",
    "FiReOPDModule",
    "Method",
    "Objective",
    "Prompt",
    "PromptSource",
    "PromptText",
    "Response",
    "RolloutBatch",
    "RolloutDataModule",
    "RolloutEngine",
    "RolloutPlan",
    "RowPlan",
    "Sampling",
    "ScoredBatch",
    "Targets",
    "Teacher",
    "TokenScores",
    "TokenWeighter",
    "TrajectoryFilter",
    "UserError",
    "Verifier",
    "fire_loss",
    "fire_targets",
    "importance_weights",
    "kept",
    "loss_fractions",
    "normalize",
    "score_rollouts",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fireopd' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})


moved_paths.install()
