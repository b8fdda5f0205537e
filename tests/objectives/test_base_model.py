"""Objectives with a base model or a baseline."""

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import P, Q, expected_gradient, logs, one_token_batch, random_state

from fireopd.method import Method
from fireopd.objectives import BaselinedReverseKL, ExtrapolatedReverseKL


def test_extrapolation_has_the_gradient_of_the_reverse_kl_to_the_extrapolated_teacher():
    logits, teacher, base = random_state()
    student = logits.log_softmax(-1)
    for strength in (0.5, 1.25, 2.0):
        beyond = (strength * teacher + (1 - strength) * base).log_softmax(-1)
        (exact,) = torch.autograd.grad((student.exp() * (student - beyond)).sum(), logits, retain_graph=True)
        objective = ExtrapolatedReverseKL(strength)
        found = expected_gradient(objective, logits, teacher, lambda token: {"base_logprobs": base[token]})
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


def test_numbers_of_the_extrapolation():
    """log teacher -.5, log base -2, log student -1: .5 with a strength of 1, .875 with 1.25."""
    student, teacher = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    batch = one_token_batch(student, teacher, 0, base_logprobs=-2.0)
    assert ExtrapolatedReverseKL(1.0).advantage(batch)[0, 1].item() == 0.5
    assert ExtrapolatedReverseKL().advantage(batch)[0, 1].item() == 0.875


def test_a_strength_of_one_is_plain_opd():
    batch = full_batch(seed=1)
    one, plain = Method(objective=ExtrapolatedReverseKL(1.0)).targets(batch), Method().targets(batch)
    assert torch.equal(one.advantage, plain.advantage)
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        ExtrapolatedReverseKL(-1)


def test_the_baseline_changes_the_variance_and_not_the_gradient():
    logits, teacher, _ = random_state(seed=4)
    student = logits.log_softmax(-1)
    divergence = (student.exp() * (student - teacher)).sum()
    (exact,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    found = expected_gradient(BaselinedReverseKL(), logits, teacher, lambda token: {"reverse_kl": divergence})
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


def test_the_baseline_on_the_likeliest_tokens_does_not_change_the_gradient():
    """Any baseline that is equal for all tokens leaves the expected gradient unchanged, whatever its value."""
    logits, teacher, _ = random_state(seed=4)
    student = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits, retain_graph=True)
    top = student.detach().topk(3).indices
    own, other = (values.detach()[top].log_softmax(-1) for values in (student, teacher))
    value = (own.exp() * (own - other)).sum()
    objective = BaselinedReverseKL("top_k")
    assert objective.requires == {"teacher_logprobs", "student_logprobs", "topk_reverse_kl"}
    found = expected_gradient(objective, logits, teacher, lambda token: {"topk_reverse_kl": value})
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)
    advantage = objective.advantage(one_token_batch(student, teacher, 0, topk_reverse_kl=value))[0, 1]
    torch.testing.assert_close(advantage, (teacher - student)[0].detach() + value)


def test_numbers_of_the_baseline():
    """p = (.6, .3, .1), q = (.2, .7, .1): the advantage of token 0 is -.693634, and the mean over p is 0."""
    student, teacher = logs(P)[0], logs(Q)[0]
    batches = [one_token_batch(student, teacher, token, reverse_kl=0.404978) for token in range(3)]
    advantages = [BaselinedReverseKL().advantage(batch)[0, 1].item() for batch in batches]
    assert advantages[0] == pytest.approx(-0.693634, abs=1e-6)
    assert sum(p * a for p, a in zip(P, advantages, strict=True)) == pytest.approx(0, abs=1e-6)
