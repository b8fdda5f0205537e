"""Skipped steps: invalid signals, no trajectory kept, or a loss or gradient that is not finite.

Each problem is a `UserError`. A single skipped step is logged; too many in a row end the run with this error.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from fireopd.errors import UserError
from fireopd.types import ScoredBatch
from fireopd.types.signals import JOINT, SIGNALS
from fireopd.types.targets import Targets

__all__ = ["invalid_signal", "no_update", "report"]

LARGEST = 1e15
"""Largest product of weight and advantage for which float32 holds the squared gradient."""


def invalid_signal(batch: ScoredBatch, required: frozenset[str]) -> UserError | None:
    """Return the first problem with the signals in `required`, naming their model; None if all are valid.

    Only a log-probability of a scored token may be infinite: -inf for probability 0, which a filter may drop.
    """
    for name in sorted(required & batch.signals.keys(), key=list(SIGNALS).index):
        values = batch.signals[name]
        wrong = ~values.isfinite()
        if not wrong.any():
            continue
        if name.endswith("logprobs") and name != "sampling_logprobs":
            wrong &= values != -torch.inf
        if wrong.ndim == 2:
            wrong &= batch.response_mask
        if wrong.any():
            return _signal(batch, name, values, wrong)
    return None


def _signal(batch: ScoredBatch, name: str, values: Tensor, wrong: Tensor) -> UserError:
    place = tuple(wrong.nonzero()[0].tolist())
    value, teacher = values[place].item(), batch.teachers[place[0]]
    rows = int(wrong.reshape(len(wrong), -1).any(-1).sum())
    problem = f"its {name} is {value} on {int(wrong.sum())} tokens of {rows} trajectories"
    if name in JOINT or name.startswith("teacher"):
        remedy = "check this teacher's weights and dtype; fireopd.testing.check_teacher tests a plug-in"
        return UserError("model.teachers", teacher, problem, remedy)
    if name == "base_logprobs":
        return UserError("model.base", name, problem, "check the base model's weights and its dtype")
    if name == "rewards":
        return UserError("data.prompts.verifier", name, problem, "fix the verifier: rewards are in [0, 1]")
    if name == "sampling_logprobs" and _student_is_finite(batch, place):
        return UserError("data.engine", name, problem, "fix the engine, or use a dtype of greater range: bfloat16")
    return UserError("model.student", name, problem, "resume from an earlier checkpoint, with a lower learning rate")


def _student_is_finite(batch: ScoredBatch, place: tuple[int, ...]) -> bool:
    """Return False if the student's log-probability of a token is not finite either: the engine is not at fault."""
    own = batch.signals.get("student_logprobs")
    return own is None or bool(own[place].isfinite())


def no_update(
    batch: ScoredBatch, targets: Targets, steps: Sequence[Mapping[str, float]], strategies: Mapping[str, object]
) -> UserError | None:
    """Return the reason why a batch gave no update; None if any of its updates was finite and had a weight.

    Args:
        batch: N trajectories.
        targets: their targets.
        steps: loss and gradient norm of each update.
        strategies: parts of the method by the names of their settings.
    """
    weighter = strategies["token_weighter"]
    if steps and not targets.weight.any():
        problem = "it gives every kept token the weight 0"
        return UserError("model.token_weighter", weighter, problem, "give some token a weight greater than 0")
    if any(all(math.isfinite(value) for value in step.values()) for step in steps):
        return None
    if not steps:
        remedy = "loosen it, or inspect dropped trajectories with the Trajectories callback"
        name = strategies["trajectory_filter"]
        return UserError("model.trajectory_filter", name, "the filter dropped every trajectory", remedy)
    wrong = ~targets.advantage.isfinite()
    if wrong.any():
        row = int(wrong.any(-1).nonzero()[0])
        problem = f"the advantage is {targets.advantage[row][wrong[row]][0].item()} for teacher {batch.teachers[row]}"
        problem += f" ({int(wrong.any(-1).sum())} trajectories): loss or gradient was not finite"
        remedy = "drop such trajectories with a TeacherLikelihoodFilter, or bound the advantage"
        return UserError("model.objective", strategies["objective"], problem, remedy)
    return _overflow(targets, strategies) or _step(steps)


def _overflow(targets: Targets, strategies: Mapping[str, object]) -> UserError | None:
    """Return the problem of weights or advantages with which loss or gradient overflows; None if all are moderate."""
    rows = ~((targets.weight * targets.importance * targets.advantage).abs() <= LARGEST).all(-1)
    if not rows.any():
        return None
    weight, advantage = targets.weight[rows].max().item(), targets.advantage[rows].abs().max().item()
    shown = f"weights up to {weight:.3g}, advantages up to {advantage:.3g}"
    problem = f"it overflows on {int(rows.sum())} trajectories ({shown}): loss or gradient was not finite"
    if weight > advantage:
        remedy = "return smaller weights, or set model.normalization to trajectory"
        return UserError("model.token_weighter", strategies["token_weighter"], problem, remedy)
    return UserError("model.objective", strategies["objective"], problem, "bound the advantage")


def _step(steps: Sequence[Mapping[str, float]]) -> UserError:
    worst = max(steps, key=lambda step: step["train/grad_norm"] != step["train/grad_norm"])
    problem = f"loss or gradient was not finite (loss {worst['train/loss']}, norm {worst['train/grad_norm']})"
    return UserError("model.optimizer", "step", problem, "lower the learning rate, or use a dtype of greater range")


def report(fault: UserError, in_a_row: int, at_most: int) -> None:
    """Log a skipped step.

    Args:
        fault: reason.
        in_a_row: number of skipped steps in a row, this one included.
        at_most: number of skipped steps in a row that ends the run.

    Raises:
        UserError: if `in_a_row` reaches `at_most`.
    """
    if in_a_row >= at_most:
        problem = f"{in_a_row} skipped steps in a row; the last one: {fault.problem}"
        raise UserError(fault.key, fault.value, problem, fault.remedy)
    rank_zero_info(f"Skipped step ({in_a_row} in a row): {fault}")
