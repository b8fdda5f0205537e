"""Exact expected gradients at one state of a small vocabulary."""

from dataclasses import replace

import torch

from fireopd.algorithm import fire_loss, loss_fractions
from fireopd.method import Method
from fireopd.models.distributions import TeacherDistributions
from fireopd.training.objective_divergence import divergence_comparison
from fireopd.types import ScoredBatch

P, Q = (0.6, 0.3, 0.1), (0.2, 0.7, 0.1)
"""Student and teacher distributions of the hand-computed values."""


def logs(probabilities):
    """Return float64 [1, V]."""
    return torch.tensor([probabilities], dtype=torch.float64).log()


def random_state(size=7, seed=0):
    """Return the student's logits, with gradient, and the teacher's and a base's log-distribution, float64 [V] each."""
    generator = torch.Generator().manual_seed(seed)
    logits, teacher, base = torch.randn(3, size, generator=generator, dtype=torch.float64).unbind()
    return logits.clone().requires_grad_(), teacher.log_softmax(-1), base.log_softmax(-1)


def one_token_batch(student, teacher, token, **signals):
    """Return a batch of one prompt token and one response token, with further signals of that token or of the row."""
    mask = torch.tensor([[False, True]])

    def at(value):
        value = torch.as_tensor(value, dtype=student.dtype)
        return torch.stack([torch.zeros_like(value), value.detach()])[None]

    read = {"student_logprobs": at(student[token]), "teacher_logprobs": at(teacher[token])}
    read |= {name: value if name == "rewards" else at(value) for name, value in signals.items()}
    return ScoredBatch(
        tokens=torch.tensor([[0, token]]),
        response_mask=mask,
        groups=torch.zeros(1, dtype=torch.int64),
        finished=torch.ones(1, dtype=torch.bool),
        teachers=("t",),
        signals=read | {"sampling_logprobs": read["student_logprobs"]},
    )


def expected_gradient(objective, logits, teacher, signals=lambda token: {}):
    """Return the gradient on the logits, summed over all tokens of the vocabulary."""
    method = Method(objective=objective, importance_cap=None)
    student = logits.log_softmax(-1)
    comparison = divergence_comparison(objective, TeacherDistributions((), ()))
    expected = torch.zeros_like(logits)
    for token in range(len(logits)):
        batch = one_token_batch(student, teacher, token, **signals(token))
        targets = method.targets(batch)
        divergence = None
        if comparison is not None:
            value = comparison.measure(student[None], teacher[None], torch.tensor([token]))["divergence"]
            divergence = torch.cat([torch.zeros_like(value), value])[None]
        logprobs = torch.stack([torch.zeros((), dtype=torch.float64), student[token]])[None]
        shares = loss_fractions(targets.mask, "token")
        loss = fire_loss(logprobs, batch.student_logprobs, targets, shares, 0.2, divergence)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        expected += student[token].exp().detach() * gradient
    return expected


def of_advantages(logits, advantages):
    """Return the gradient of - sum_v p_v A_v with the advantages held fixed: - p_v (A_v - mean A)."""
    p = logits.detach().softmax(-1)
    advantages = torch.tensor(advantages, dtype=torch.float64)
    return -p * (advantages - (p * advantages).sum())


def by_differences(function, logits, step=1e-5):
    """Return the gradient of a function of the probabilities, a list, by central differences of the logits."""
    gradient = torch.zeros_like(logits)
    for place in range(len(logits)):
        moved = [logits.detach().clone() for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        high, low = (function(values.softmax(-1).tolist()) for values in moved)
        gradient[place] = (high - low) / (2 * step)
    return gradient


def with_signals(batch, **signals):
    """Return a batch with some signals replaced."""
    return replace(batch, signals=dict(batch.signals) | signals)
