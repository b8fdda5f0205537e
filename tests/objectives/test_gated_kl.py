"""Gated objectives: coefficients, advantages and expected gradients."""

import math

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import by_differences, expected_gradient, of_advantages, random_state

from fireopd.method import Method
from fireopd.objectives import EntropyGatedKL, SignGatedKL


def forward_on_top(q, top_k, renormalised, both=False):
    chosen = sorted(range(len(q)), key=lambda v: -q[v])[:top_k]
    mass = sum(q[v] for v in chosen) if renormalised else 1.0
    return lambda p: sum(q[v] / mass * math.log(q[v] / mass / (p[v] / own(p, chosen, both))) for v in chosen)


def own(p, chosen, both):
    return sum(p[v] for v in chosen) if both else 1.0


@pytest.mark.parametrize(("entropy", "added"), [(0.7, False), (0.9, True)])
@pytest.mark.parametrize("mass", ["teacher", "plain"])
def test_the_forward_kl_is_added_where_the_teacher_is_uncertain(entropy, added, mass):
    logits, teacher, _ = random_state(seed=8)
    student = logits.detach().log_softmax(-1)
    naive = forward_on_top(teacher.exp().tolist(), 3, mass == "teacher")
    exact = of_advantages(logits, (teacher - student).tolist())
    if added:
        exact = exact + 0.5 * by_differences(naive, logits)
    objective = EntropyGatedKL(strength=0.5, top_k=3, mass=mass)
    found = expected_gradient(objective, logits, teacher, lambda token: {"teacher_entropy": entropy})
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mass", ["teacher", "both"])
def test_the_sign_of_the_log_ratio_selects_the_term(mass):
    logits, teacher, _ = random_state(seed=9)
    student = logits.detach().log_softmax(-1)
    ratio = (teacher - student).tolist()
    assert min(ratio) < 0 < max(ratio)
    below = sum(p for p, r in zip(student.exp().tolist(), ratio, strict=True) if r <= 0)
    exact = of_advantages(logits, [max(r, 0.0) for r in ratio])
    naive = forward_on_top(teacher.exp().tolist(), 3, True, mass == "both")
    exact = exact + 2.0 * below * by_differences(naive, logits)
    found = expected_gradient(SignGatedKL(strength=2.0, top_k=3, mass=mass), logits, teacher)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8)


def test_an_infinite_threshold_is_plain_opd():
    batch = full_batch()
    gated, plain = Method(objective=EntropyGatedKL(math.inf)).targets(batch), Method().targets(batch)
    for name in ("keep", "mask", "weight", "advantage", "importance"):
        assert torch.equal(getattr(gated, name), getattr(plain, name))
    assert gated.coefficient.abs().max() == 0


def test_coefficients_are_those_of_the_tokens():
    batch = full_batch(seed=2)
    gated = Method(objective=EntropyGatedKL(0.8, 3.0)).targets(batch).coefficient
    expected = torch.where(batch.response_mask & (batch.teacher_entropy > 0.8), 3.0, 0.0)
    assert torch.equal(gated, expected)
    assert 0 < int((gated > 0).sum()) < int(batch.response_mask.sum())


@pytest.mark.parametrize("make", [EntropyGatedKL, SignGatedKL])
def test_settings_have_a_range(make):
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        make(strength=-1)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        make(top_k=0)
