"""What makes a step worthless: scores that are no numbers, nothing kept, a loss or a gradient that is not finite.

Each is said as the error that ends the run when it comes too many times in a row; a single one is passed over.
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


def unusable_signal(batch: ScoredBatch, read: frozenset[str]) -> UserError | None:
    """Return what is wrong with the signals that are read, if anything is, naming whose they are.

    Only a log-probability may be infinite, that of a token that a model holds impossible; it is for the filter to drop.
    """
    for name in sorted(read & batch.signals.keys(), key=list(SIGNALS).index):
        values = batch.signals[name]
        wrong = ~values.isfinite()
        if not wrong.any():
            continue
        if name.endswith("logprobs"):
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
        return UserError("model.teachers", teacher, problem, "check this teacher's weights and its dtype")
    if name == "base_logprobs":
        return UserError("model.base", name, problem, "check the base model's weights and its dtype")
    if name == "rewards":
        return UserError("data.prompts.verifier", name, problem, "mend the verifier: rewards are in [0, 1]")
    return UserError("model.student", name, problem, "go on from an earlier checkpoint, with a lower learning rate")


def fruitless(
    batch: ScoredBatch, targets: Targets, steps: Sequence[Mapping[str, float]], strategies: Mapping[str, object]
) -> UserError | None:
    """Return why a batch came to nothing, if no update of it was finite.

    Args:
        batch: N trajectories.
        targets: what was made of them.
        steps: loss and gradient norm of each update.
        strategies: the parts of the method, by their names.
    """
    if any(all(math.isfinite(value) for value in step.values()) for step in steps):
        return None
    if not steps:
        remedy = "loosen it, or look at what it drops with the Trajectories callback"
        name = strategies["trajectory_filter"]
        return UserError("model.trajectory_filter", name, "the filter dropped every trajectory", remedy)
    wrong = ~targets.advantage.isfinite()
    if wrong.any():
        row = int(wrong.any(-1).nonzero()[0])
        problem = f"the advantage is {targets.advantage[row][wrong[row]][0].item()} where teacher {batch.teachers[row]}"
        problem += f" judges ({int(wrong.any(-1).sum())} trajectories): loss or gradient was not finite"
        remedy = "drop such trajectories with a TeacherLikelihoodFilter, or bound the advantage"
        return UserError("model.objective", strategies["objective"], problem, remedy)
    worst = max(steps, key=lambda step: step["train/grad_norm"] != step["train/grad_norm"])
    problem = f"loss or gradient was not finite (loss {worst['train/loss']}, norm {worst['train/grad_norm']})"
    return UserError("model.optimizer", "step", problem, "lower the learning rate, or use a dtype of greater range")


def pass_over(fault: UserError, in_a_row: int, at_most: int) -> None:
    """Say that a step came to nothing.

    Args:
        fault: of the step.
        in_a_row: steps up to this one that came to nothing, one after the other.
        at_most: how many of them end the run.

    Raises:
        UserError: if it was one too many.
    """
    if in_a_row >= at_most:
        problem = f"{in_a_row} steps in a row came to nothing; of the last: {fault.problem}"
        raise UserError(fault.key, fault.value, problem, fault.remedy)
    rank_zero_info(f"Step {in_a_row} in a row that comes to nothing: {fault}")
