"""Exact expected gradient of an objective at one state of a small vocabulary."""

import torch
from torch import Tensor

from fireopd.objectives import DirectObjective, Objective
from fireopd.types import ScoredBatch
from fireopd.types.signals import SIGNALS

__all__ = ["derived_signals", "expected_gradient"]


def expected_gradient(
    objective: Objective, student_logits: Tensor, teacher_logits: Tensor, **signals: Tensor
) -> Tensor:
    """Return the expected gradient of the loss with respect to the student's logits.

    The exact sum over the vocabulary of -p_v A(v) grad log p_v, where p is the student's distribution and A(v) the
    advantage of a one-token response v in a batch of one row. For `ReverseKL` it is the gradient of
    KL(student || teacher). A direct objective adds the mean gradient of its estimate, times its coefficient.
    The result does not apply to objectives that compare trajectories.

    Args:
        objective: objective under test.
        student_logits: float [V]. Logits of the student at the state.
        teacher_logits: float [V]. Logits of the teacher at the state.
        signals: float [V]. Values per token of signals that the two distributions do not determine (`rewards`,
            `base_logprobs`), or that override the determined ones.

    Returns:
        float [V]. Gradient, nats per unit of a logit.

    Raises:
        LookupError: if the objective requires a signal that is neither given nor determined.
    """
    logits = student_logits.detach().clone().requires_grad_()
    student, teacher = logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    known = derived_signals(student.detach(), teacher) | signals
    for name in sorted(objective.requires - known.keys()):
        raise LookupError(f"pass {name}=..., float [V]: {SIGNALS[name]}; the distributions do not determine it")
    batches = [_batch_of(known, token).view_for(objective) for token in range(len(logits))]
    mass = student.detach().exp()
    with torch.no_grad():
        advantages = torch.stack([objective.advantage(batch)[0, 1] for batch in batches])
    loss = -(mass * advantages * student).sum()
    objective = objective.at(0)
    if isinstance(objective, DirectObjective):
        with torch.no_grad():
            coefficients = torch.stack([objective.coefficient(batch)[0, 1] for batch in batches])
        pair = student.expand(len(logits), -1), teacher.expand(len(logits), -1)
        loss = loss + (mass * coefficients * objective.estimate(*pair, torch.arange(len(logits)))).sum()
    return torch.autograd.grad(loss, logits)[0]


def derived_signals(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Return the signals, each float [V], that are determined by two log-distributions, float [V]."""
    entropies = {
        "student_entropy": -(student.exp() * student).sum(),
        "teacher_entropy": -(teacher.exp() * teacher).sum(),
        "reverse_kl": (student.exp() * (student - teacher)).sum(),
    }
    logprobs = {"student_logprobs": student, "sampling_logprobs": student, "teacher_logprobs": teacher}
    return logprobs | {name: value.expand_as(student) for name, value in entropies.items()}


def _batch_of(known: dict[str, Tensor], token: int) -> ScoredBatch:
    """Return a batch of one response of one token."""
    per_token = {name: torch.stack([torch.zeros_like(v[token]), v[token]])[None] for name, v in known.items()}
    signals = per_token | ({"rewards": known["rewards"][token][None]} if "rewards" in known else {})
    return ScoredBatch(
        tokens=torch.tensor([[0, token]]),
        response_mask=torch.tensor([[False, True]]),
        groups=torch.zeros(1, dtype=torch.int64),
        finished=torch.ones(1, dtype=torch.bool),
        teachers=("teacher",),
        signals=signals,
    )
