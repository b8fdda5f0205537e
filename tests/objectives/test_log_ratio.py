"""Log-ratio objectives: values, exact expected gradients, neutral settings."""

import math

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import P, Q, expected_gradient, logs, of_advantages, one_token_batch, random_state

from fireopd.method import Method
from fireopd.objectives import (
    ClippedReverseKL,
    FixedPenalty,
    FlooredReverseKL,
    PowerDifference,
    ReverseKL,
    SoftLogRatio,
)
from fireopd.types.log_ratio import floor_of


def test_reverse_kl_has_the_gradient_of_the_reverse_kl():
    logits, teacher, _ = random_state()
    student = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(expected_gradient(ReverseKL(), logits, teacher), exact, rtol=1e-10, atol=1e-12)


def test_numbers_of_the_reverse_kl():
    """p = (.6, .3, .1), q = (.2, .7, .1): KL(p || q) = .404978 nats."""
    student, teacher = logs(P)[0], logs(Q)[0]
    gaps = [Method().targets(one_token_batch(student, teacher, token)).advantage[0, 1] for token in range(3)]
    mean = sum(-gap * student[token].exp() for token, gap in enumerate(gaps))
    torch.testing.assert_close(mean, torch.tensor(0.404978, dtype=torch.float64), atol=1e-6, rtol=0)


def test_power_difference_has_its_documented_gradient():
    logits, teacher, _ = random_state(seed=1)
    for power in (0.3, 1.0, 2.0):
        student = logits.log_softmax(-1).exp()
        stated = (student ** (1 + power) / (1 + power) - student * teacher.exp() ** power).sum()
        (exact,) = torch.autograd.grad(stated, logits)
        assert exact.abs().max() > 1e-3
        found = expected_gradient(PowerDifference(power), logits, teacher)
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("objective", "advantage"),
    [
        (ClippedReverseKL(0.5), lambda s, t: max(-0.5, min(0.5, t - s))),
        (SoftLogRatio(), lambda s, t: math.copysign(math.log(1 + abs(t - s)), t - s)),
        (FlooredReverseKL(0.5), lambda s, t: max(t - s, 2 * math.log(0.5))),
        (FlooredReverseKL(0.4, "logit"), lambda s, t: max(t - s, math.log(0.4 / 0.6))),
        (PowerDifference(2.0), lambda s, t: math.exp(t) ** 2 - math.exp(s) ** 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_expected_gradient_is_that_of_the_advantages(objective, advantage):
    logits, teacher, _ = random_state(seed=8)
    student = logits.detach().log_softmax(-1).tolist()
    advantages = [advantage(s, t) for s, t in zip(student, teacher.tolist(), strict=True)]
    plain = [t - s for s, t in zip(student, teacher.tolist(), strict=True)]
    assert advantages != pytest.approx(plain), "the setting must have an effect"
    found = expected_gradient(objective, logits, teacher)
    torch.testing.assert_close(found, of_advantages(logits, advantages), rtol=1e-9, atol=1e-9)


def test_a_fixed_penalty_without_weights_has_no_gradient():
    logits, teacher, _ = random_state(seed=8)
    assert FixedPenalty(3.0).advantage(full_batch()).unique().tolist() == [-3.0]
    found = expected_gradient(FixedPenalty(3.0), logits, teacher)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)


def test_numbers_of_the_power_difference():
    """log student -1, log teacher -.5: .238651 with a power of 1; .046392 with .1, and that / .1 = .463920."""
    student, teacher = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    batch = one_token_batch(student, teacher, 0)
    assert PowerDifference(1.0).advantage(batch)[0, 1].item() == pytest.approx(0.238651, abs=1e-6)
    assert PowerDifference(0.1).advantage(batch)[0, 1].item() == pytest.approx(0.046392, abs=1e-6)
    assert PowerDifference(1e-6).advantage(batch)[0, 1].item() / 1e-6 == pytest.approx(0.5, abs=1e-5)


def test_both_formulas_of_the_floor():
    """Two floors of REOPOLD are in use: -2.558 or -2.197 for .1, -2.012 or -1.386 for .2, -1.386 or 0 for .5."""
    for mixing, scaled, logit in ((0.1, -2.558, -2.197), (0.2, -2.012, -1.386), (0.5, -1.386, 0.0)):
        assert floor_of(mixing, "scaled") == pytest.approx(scaled, abs=1e-3)
        assert floor_of(mixing, "logit") == pytest.approx(logit, abs=1e-3)


@pytest.mark.parametrize("objective", [ClippedReverseKL(99.0), FlooredReverseKL(1e-40)], ids=str)
def test_neutral_settings_are_plain_opd(objective):
    batch = full_batch(seed=3)
    assert torch.equal(Method(objective=objective).targets(batch).advantage, Method().targets(batch).advantage)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClippedReverseKL(0.0), "limit must be greater than 0, got 0.0"),
        (lambda: FlooredReverseKL(1.0), r"mixing must be in \(0, 1\), got 1.0"),
        (lambda: PowerDifference(-1), "power must be greater than 0, got -1"),
        (lambda: FixedPenalty(penalty=0), "penalty must be greater than 0, got 0"),
    ],
)
def test_settings_have_a_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
