"""Divergences over the whole vocabulary: values, and gradients against finite differences."""

import math

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import P, Q, by_differences, expected_gradient, logs, random_state

from fireopd.method import Method
from fireopd.objectives import GeneralizedJSD, SkewKL
from fireopd.reductions import kl


def naive_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def naive_jsd(beta):
    def divergence(p, q):
        if beta in (0, 1):
            return naive_kl(p, q) if beta == 1 else naive_kl(q, p)
        middle = [beta * b + (1 - beta) * a for a, b in zip(p, q, strict=True)]
        return beta * naive_kl(q, middle) + (1 - beta) * naive_kl(p, middle)

    return divergence


def naive_skew(share):
    return lambda p, q: naive_kl(p, [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)])


CASES = [(GeneralizedJSD(beta), naive_jsd(beta)) for beta in (0.0, 0.1, 0.5, 0.9, 1.0)]
CASES += [(SkewKL(skew), naive_skew(skew)) for skew in (0.0, 0.1, 0.7)]


@pytest.mark.parametrize(
    ("objective", "naive"), CASES, ids=lambda value: str(value) if hasattr(value, "requires") else ""
)
def test_value_and_gradient_equal_the_naive_reference(objective, naive):
    logits, teacher, _ = random_state(seed=5)
    student, target = logits.detach().softmax(-1).tolist(), teacher.exp().tolist()
    value = objective.divergence(logits.log_softmax(-1)[None], teacher[None])
    assert value.shape == (1,)
    assert value.item() == pytest.approx(naive(student, target), rel=1e-9)
    exact = by_differences(lambda p: naive(p, target), logits)
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(expected_gradient(objective, logits, teacher), exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (GeneralizedJSD(1.0), 0.404978),
        (GeneralizedJSD(0.0), 0.373386),
        (GeneralizedJSD(0.1), 0.033419),
        (GeneralizedJSD(0.5), 0.093466),
        (GeneralizedJSD(0.9), 0.035575),
        (SkewKL(0.1), 0.313237),
    ],
    ids=str,
)
def test_numbers_worked_by_hand(objective, expected):
    """p = (.6, .3, .1), q = (.2, .7, .1)."""
    assert objective.divergence(logs(P), logs(Q)).item() == pytest.approx(expected, abs=1e-6)


def test_equal_distributions_have_divergence_0():
    for objective, _ in CASES:
        assert objective.divergence(logs(P), logs(P)).item() == pytest.approx(0, abs=1e-12)


def test_tokens_of_probability_0_under_the_student_have_a_finite_gradient():
    student = torch.tensor([[0.0, -1.0, -torch.inf]], dtype=torch.float64).log_softmax(-1).requires_grad_()
    value = kl(student, logs(Q))
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


def test_a_direct_objective_has_a_coefficient_of_one_and_no_advantage():
    batch = full_batch()
    targets, plain = Method(objective=GeneralizedJSD()).targets(batch), Method().targets(batch)
    assert plain.coefficient is None
    assert torch.equal(targets.coefficient, targets.mask.float())
    assert targets.advantage.abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneralizedJSD(1.1), r"beta must be in \[0, 1\], got 1.1"),
        (lambda: SkewKL(1.0), r"skew must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_have_a_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
