"""Probe of the engine's weights after a sync: engine and student score the same trajectory.

Two computations of the same weights in bfloat16 differ by some hundredths of a nat in the mean, and by half a nat at
single tokens, so the mean decides and the maximum has a wide bound. A sync that was skipped is smaller than this noise
at low learning rates. It is found exactly: the engine repeats its log-probabilities of the previous probe bit by bit,
and those of the student have changed. Tensors that never arrive are found before the run, see
`fireopd.training.weight_trial`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning import Trainer
from torch import Tensor

from fireopd.engines import RolloutEngine
from fireopd.engines.contract import checked_probe
from fireopd.errors import UserError
from fireopd.models.scorer import CausalScorer

__all__ = [
    "HALF_PRECISION_GAP",
    "PROBE_LENGTH",
    "Probe",
    "ProbedModule",
    "allowed_gap",
    "computing_dtypes",
    "student_logprobs",
]

PROBE_LENGTH = 256
"""Largest number of tokens of a probe."""
HALF_PRECISION_GAP = 0.1
"""Largest mean difference, in nats, if engine or student compute in half precision."""
OUTLIER_FACTOR = 20.0
"""Bound of the largest difference of a token, as a multiple of the bound of the mean."""
SMALLEST_CHANGE = 1e-4
"""Mean change of the student's log-probabilities, in nats, that must change those of an engine in half precision."""


class ProbedModule(Protocol):
    """Attributes of the Lightning module that a probe needs."""

    student: CausalScorer
    student_name: str
    dtype_name: str
    sharding: Any

    @property
    def device(self) -> torch.device:
        """Device of this process."""

    @property
    def trainer(self) -> Trainer:
        """Trainer of the run."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Log-probabilities of all tokens but the first, float32 [len(tokens) - 1] each."""

    tokens: list[int]
    """Token ids."""
    student: Tensor
    """Those of the student."""
    engine: dict[str, Tensor]
    """Those of each copy of the engine's weights, by name."""

    @classmethod
    def of(cls, pl_module: ProbedModule, engine: RolloutEngine, tokens: list[int]) -> "Probe":
        """Score tokens. Every process must call with the same tokens.

        Raises:
            UserError: if the student's log-probabilities are not finite.
            ContractError: if the result of the engine is invalid.
        """
        with pl_module.trainer.strategy.precision_plugin.forward_context():
            expected = student_logprobs(pl_module, tokens)
        if not expected.isfinite().all():
            problem = "its log-probabilities of a probe are not finite: the weights are not, or their dtype overflows"
            remedy = "use model.dtype float32, or resume from an earlier checkpoint"
            raise UserError("model.student", pl_module.student_name, problem, remedy)
        return cls(tokens, expected, checked_probe(engine, engine.probe(tokens), tokens))

    def disagreement(self, bound: float) -> str | None:
        """Return the problem of a copy that differs from the student, or None.

        Args:
            bound: largest mean of the absolute differences, nats.
        """
        for name, logprobs in self.engine.items():
            gaps = (logprobs - self.student).abs()
            mean, largest = gaps.mean().item(), gaps.max().item()
            if not (mean <= bound and largest <= OUTLIER_FACTOR * bound):
                problem = (
                    f"on a probe the log-probabilities of {name} are {mean:.3g} nats from the student's in the mean"
                )
                return f"{problem}, and up to {largest:.3g}; {bound:g} and {OUTLIER_FACTOR * bound:g} are allowed"
        return None

    def staleness(self, before: "Probe") -> str | None:
        """Return the problem of a copy that did not change since an earlier probe of the same tokens, or None."""
        change = (self.student - before.student).abs().mean().item()
        for name, logprobs in self.engine.items():
            old = before.engine.get(name)
            if old is not None and torch.equal(logprobs, old) and change > SMALLEST_CHANGE:
                problem = f"the log-probabilities of {name} on the previous probe are those before the sync"
                return f"{problem}, while the student's changed by {change:.3g} nats in the mean"
        return None


def computing_dtypes(pl_module: ProbedModule, engine: RolloutEngine) -> set[str]:
    """Return the known dtypes and precisions in which student and engine compute, for example `bf16-mixed`."""
    computed = {pl_module.dtype_name, str(pl_module.trainer.precision), str(getattr(engine, "dtype", ""))}
    return computed | {str(pl_module.sharding.param_dtype)} if pl_module.student.sharded else computed


def allowed_gap(pl_module: ProbedModule, engine: RolloutEngine) -> float:
    """Return the bound of the mean difference: `max_probe_gap`, and at least `HALF_PRECISION_GAP` in half precision."""
    half = any("16" in name for name in computing_dtypes(pl_module, engine))
    return max(engine.max_probe_gap, HALF_PRECISION_GAP) if half else engine.max_probe_gap


def student_logprobs(pl_module: ProbedModule, tokens: list[int]) -> Tensor:
    """Return the student's log-probabilities of all tokens but the first, float32 [len(tokens) - 1]."""
    sequence = torch.tensor([tokens], device=pl_module.device)
    scores = pl_module.student(sequence, torch.ones_like(sequence, dtype=torch.bool))
    return scores.logprobs[0, 1:].float().cpu()
