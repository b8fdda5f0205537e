"""Each objective's expected gradient, by an exact sum over a small vocabulary."""

import torch

from fireopd.algorithm import fire_loss, loss_shares
from fireopd.methods import Method
from fireopd.types import ScoredBatch


def one_token_batch(student, teacher, token):
    mask = torch.tensor([[False, True]])

    def at(value):
        return torch.stack([torch.zeros((), dtype=value.dtype), value.detach()])[None]

    signals = {"student_logprobs": at(student[token]), "teacher_logprobs": at(teacher[token])}
    return ScoredBatch(
        tokens=torch.tensor([[0, token]]),
        response_mask=mask,
        groups=torch.zeros(1, dtype=torch.int64),
        finished=torch.ones(1, dtype=torch.bool),
        teachers=("t",),
        signals=signals | {"sampling_logprobs": signals["student_logprobs"]},
    )


def test_reverse_kl_has_the_gradient_of_the_reverse_kl():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(-1)
    student = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits, retain_graph=True)
    expected = torch.zeros_like(logits)
    for token in range(7):
        batch = one_token_batch(student, teacher, token)
        targets = Method().targets(batch)
        logprobs = torch.stack([torch.zeros((), dtype=torch.float64), student[token]])[None]
        loss = fire_loss(logprobs, batch.student_logprobs, targets, loss_shares(targets.mask, "token"), 0.2)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        expected += student[token].exp().detach() * gradient
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(expected, exact, rtol=1e-10, atol=1e-12)


def test_numbers_of_the_reverse_kl():
    """p = (.6, .3, .1), q = (.2, .7, .1): KL(p || q) = .404978 nats."""
    student, teacher = (torch.tensor(p, dtype=torch.float64).log() for p in ((0.6, 0.3, 0.1), (0.2, 0.7, 0.1)))
    gaps = [Method().targets(one_token_batch(student, teacher, token)).advantage[0, 1] for token in range(3)]
    mean = sum(-gap * student[token].exp() for token, gap in enumerate(gaps))
    torch.testing.assert_close(mean, torch.tensor(0.404978, dtype=torch.float64), atol=1e-6, rtol=0)
