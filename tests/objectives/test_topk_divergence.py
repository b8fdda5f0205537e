"""Divergences on the likeliest tokens: values, supports, gradients against finite differences."""

import math
from itertools import product

import pytest
import torch
from helpers.small_vocabulary import P, Q, by_differences, expected_gradient, logs, random_state

from fireopd.objectives import GeneralizedJSD, TopKDivergence, TopKPolicyGradient


def likeliest(probabilities, top_k):
    return set(sorted(range(len(probabilities)), key=lambda v: -probabilities[v])[:top_k])


def naive(objective, p, q, support):
    chosen = sorted(support)
    a, b = [p[v] for v in chosen], [q[v] for v in chosen]
    if objective.mass == "tail":
        a, b = [*a, 1 - sum(a)], [*b, 1 - sum(b)]
    if objective.mass == "both":
        a = [x / sum(a) for x in a]
    if objective.mass in ("both", "teacher"):
        b = [x / sum(b) for x in b]
    if objective.direction == "forward":
        a, b = b, a
    extra = sum(b) - sum(a) if objective.mass == "generalized" else 0.0
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True)) + extra


DIRECTIONS, SUPPORTS, MASSES = (
    ("reverse", "forward"),
    ("teacher", "student", "union"),
    ("both", "teacher", "plain", "tail", "generalized"),
)
SETTINGS = list(product((1, 3), DIRECTIONS, SUPPORTS, MASSES))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_value_and_gradient_equal_the_naive_reference(settings):
    objective = TopKDivergence(*settings)
    logits, teacher, _ = random_state(seed=10)
    p, q = logits.detach().softmax(-1).tolist(), teacher.exp().tolist()
    own, other = likeliest(p, objective.top_k), likeliest(q, objective.top_k)
    assert own != other, "the support must have an effect"
    support = {"teacher": other, "student": own, "union": own | other}[objective.support]
    value = objective.divergence(logits.log_softmax(-1)[None], teacher[None]).item()
    assert value == pytest.approx(naive(objective, p, q, support), rel=1e-7, abs=1e-12)
    exact = by_differences(lambda moved: naive(objective, moved, q, support), logits)
    torch.testing.assert_close(expected_gradient(objective, logits, teacher), exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (TopKDivergence(2, "reverse", mass="both"), 0.449976),
        (TopKDivergence(2, "forward", mass="plain"), 0.373386),
        (TopKDivergence(2, "forward", mass="teacher"), 0.520234),
        (TopKDivergence(2, "reverse", mass="tail"), 0.404978),
    ],
    ids=str,
)
def test_numbers_worked_by_hand(objective, expected):
    """p = (.6, .3, .1), q = (.2, .7, .1), the teacher's top 2; the tail is one token, so the divergence is exact."""
    assert objective.divergence(logs(P), logs(Q)).item() == pytest.approx(expected, abs=1e-6)


def test_the_whole_vocabulary_gives_the_whole_divergence():
    logits, teacher, _ = random_state(seed=7)
    student = logits.log_softmax(-1)[None]
    whole = GeneralizedJSD(1.0).divergence(student, teacher[None])
    for mass, support in product(
        ("both", "plain", "tail", "generalized"), ("teacher", "student", "intersection", "union")
    ):
        some = TopKDivergence(99, mass=mass, support=support).divergence(student, teacher[None])
        torch.testing.assert_close(some, whole, rtol=1e-9, atol=1e-9)


def test_a_tail_gives_a_lower_bound():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 50, 20, generator=generator, dtype=torch.float64).log_softmax(-1)
    whole = GeneralizedJSD(1.0).divergence(student, teacher)
    bound = TopKDivergence(4, mass="tail").divergence(student, teacher)
    assert (bound <= whole + 1e-12).all()
    assert (bound > 0).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_proper_divergence_is_positive_and_at_rest_for_equal_distributions(settings):
    objective = TopKDivergence(*settings)
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 200, 7, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)
    logits = teacher.clone().requires_grad_()
    equal = objective.divergence(logits.log_softmax(-1), teacher)
    (gradient,) = torch.autograd.grad(equal.sum(), logits)
    if objective.proper:
        assert objective.divergence(student, teacher).min() > -1e-12
        assert equal.abs().max() < 1e-12
        assert gradient.abs().max() < 1e-12
    elif objective.top_k < 7:
        assert gradient.abs().max() > 1e-3, "that of the mass on the support"


def test_partial_sums_can_be_negative():
    objective = TopKDivergence(2, support="student", mass="plain")
    assert objective.divergence(logs((0.35, 0.35, 0.3)), logs((0.5, 0.4, 0.1))).item() < -0.1


@pytest.mark.parametrize("support", ["teacher", "student", "union", "intersection"])
def test_the_policy_gradient_over_candidates(support):
    logits, teacher, _ = random_state(seed=10)
    p, q = logits.detach().softmax(-1), teacher.exp()
    own, other = likeliest(p.tolist(), 3), likeliest(q.tolist(), 3)
    chosen = {"teacher": other, "student": own, "union": own | other, "intersection": own & other}[support]
    assert 0 < len(chosen) < 7
    mass = sum(p[v] for v in chosen)
    exact = torch.zeros_like(p)
    for v in chosen:
        weight, advantage = p[v] / mass, (q[v] / p[v]).log()
        exact -= weight * advantage * (torch.eye(7, dtype=p.dtype)[v] - p)
    objective = TopKPolicyGradient(3, support)
    torch.testing.assert_close(expected_gradient(objective, logits, teacher), exact, rtol=1e-9, atol=1e-12)
    value = objective.divergence(logits.log_softmax(-1)[None], teacher[None])
    torch.testing.assert_close(
        value, TopKDivergence(3, support=support).divergence(logits.log_softmax(-1)[None], teacher[None])
    )


def test_the_policy_gradient_over_the_vocabulary_is_that_of_the_reverse_kl():
    logits, teacher, _ = random_state(seed=10)
    student = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits, retain_graph=True)
    torch.testing.assert_close(expected_gradient(TopKPolicyGradient(7), logits, teacher), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", [TopKDivergence(3, support="student", mass="generalized"), TopKPolicyGradient(3)])
def test_a_student_equal_to_its_teacher_stays(objective):
    teacher = random_state(seed=2)[1]
    logits = teacher.clone().requires_grad_()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(
            objective.divergence(logits.log_softmax(-1)[None], teacher[None]).sum(), logits
        )
        logits = (logits - 0.5 * gradient).detach().requires_grad_()
    torch.testing.assert_close(logits.log_softmax(-1), teacher, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mass", ["both", "teacher", "plain", "tail", "generalized"])
def test_an_empty_intersection_is_finite_with_a_gradient(mass):
    student = torch.tensor([[0.9, 0.08, 0.02]]).log().requires_grad_()
    teacher = torch.tensor([[0.02, 0.08, 0.9]]).log()
    value = TopKDivergence(1, support="intersection", mass=mass).divergence(student, teacher)
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


def test_top_k_has_a_range():
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        TopKDivergence(0)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        TopKPolicyGradient(0)


def test_a_tiny_mass_on_the_support_is_normalised_with_a_gradient():
    """The student's mass on the support is below the precision of float32; normalised, it is still a distribution."""
    student = torch.tensor([[30.0, 1.0, 0.0, -1.0]], requires_grad=True)
    teacher = torch.tensor([[-5.0, 3.0, 0.0, 2.0]]).log_softmax(-1)
    divergence = TopKDivergence(top_k=2).divergence(student.log_softmax(-1), teacher)
    own, other = (x[:, [1, 3]].double().log_softmax(-1) for x in (student, teacher))
    expected = (own.exp() * (own - other)).sum()
    assert divergence.item() == pytest.approx(expected.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(divergence.sum(), student)
    (reference,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-6)
