"""What an objective descends, exactly, at one state of a small vocabulary."""

import torch
from torch import Tensor

from fireopd.objectives import DirectObjective, Objective
from fireopd.types import ScoredBatch
from fireopd.types.signals import SIGNALS


def expected_gradient(
    objective: Objective, student_logits: Tensor, teacher_logits: Tensor, **signals: Tensor
) -> Tensor:
    """Return the gradient that gradient descent follows on average, with respect to the student's logits.

    It is the exact sum over the vocabulary of -p_v A(v) grad log p_v: p is the student's distribution, and A(v) the
    advantage of a response that is the one token v, in a batch of its own. For `ReverseKL` it is the gradient of
    KL(student || teacher). The divergence of a direct objective is added, times the mean of its coefficients. An
    objective that compares trajectories with one another has another gradient.

    Args:
        objective: gives the advantages.
        student_logits: float [V]. The student at the state.
        teacher_logits: float [V]. The teacher at the state.
        signals: float [V]. For each token, what does not follow from the two distributions (`rewards`,
            `base_logprobs`), or is to be otherwise.

    Returns:
        float [V]. Nats for each unit of a logit.

    Raises:
        LookupError: if the objective requires a signal that is not known here.
    """
    logits = student_logits.detach().clone().requires_grad_()
    student, teacher = logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    known = derived_signals(student.detach(), teacher) | signals
    for name in sorted(objective.requires - known.keys()):
        raise LookupError(f"give {name}=..., float [V]: {SIGNALS[name]}; it does not follow from the distributions")
    batches = [_batch_of(known, token).view_for(objective) for token in range(len(logits))]
    mass = student.detach().exp()
    with torch.no_grad():
        advantages = torch.stack([objective.advantage(batch)[0, 1] for batch in batches])
    loss = -(mass * advantages * student).sum()
    if isinstance(objective, DirectObjective):
        with torch.no_grad():
            coefficients = torch.stack([objective.coefficient(batch)[0, 1] for batch in batches])
        loss = loss + (mass * coefficients).sum() * objective.divergence(student[None], teacher[None])[0]
    return torch.autograd.grad(loss, logits)[0]


def derived_signals(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Return the signals that two log-distributions, float [V], determine for each token, each float [V]."""
    entropies = {
        "student_entropy": -(student.exp() * student).sum(),
        "teacher_entropy": -(teacher.exp() * teacher).sum(),
        "reverse_kl": (student.exp() * (student - teacher)).sum(),
    }
    logprobs = {"student_logprobs": student, "sampling_logprobs": student, "teacher_logprobs": teacher}
    return logprobs | {name: value.expand_as(student) for name, value in entropies.items()}


def _batch_of(known: dict[str, Tensor], token: int) -> ScoredBatch:
    """Return a batch of a response of one token."""
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
