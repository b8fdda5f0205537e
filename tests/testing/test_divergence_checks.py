"""Conformance checks of direct objectives: violations are found and reported with a remedy."""

from dataclasses import dataclass

import pytest
import torch

from fireopd.objectives import (
    DirectObjective,
    EntropyGatedKL,
    GeneralizedJSD,
    SignGatedKL,
    TopKDivergence,
    TopKPolicyGradient,
)
from fireopd.reductions import kl
from fireopd.testing import check_objective, expected_gradient


@dataclass(frozen=True)
class Right(DirectObjective):
    def divergence(self, student, teacher):
        return kl(student, teacher)


@dataclass(frozen=True)
class MeanOfChunk(Right):
    """Its scale depends on the other tokens of the chunk."""

    def divergence(self, student, teacher):
        gap = kl(student, teacher)
        return gap / gap.sum().clamp(min=1e-3)


@dataclass(frozen=True)
class Detached(Right):
    def divergence(self, student, teacher):
        return kl(student, teacher).detach()


@dataclass(frozen=True)
class NotSummed(Right):
    def divergence(self, student, teacher):
        return student.exp() * (student - teacher)


@dataclass(frozen=True)
class EstimateOfTheChunk(Right):
    def estimate(self, student, teacher, tokens):
        return student.gather(-1, tokens[:, None])


@dataclass(frozen=True)
class CrossEntropy(Right):
    """Is not 0 for equal distributions."""

    def divergence(self, student, teacher):
        return -(teacher.exp() * student.clamp(min=-100)).sum(-1)


@dataclass(frozen=True)
class NotANumber(Right):
    """0 times infinity."""

    def divergence(self, student, teacher):
        return (student.exp() * (student - teacher)).sum(-1)


@dataclass(frozen=True)
class InPlace(Right):
    def divergence(self, student, teacher):
        return kl(student, teacher.clamp_(min=-3) * 1) * 0 + kl(student, teacher)


@dataclass(frozen=True)
class NegativeCoefficient(Right):
    requires = frozenset({"teacher_entropy"})

    def coefficient(self, batch):
        return batch.teacher_entropy - 1


@dataclass(frozen=True)
class UndeclaredInCoefficient(Right):
    def coefficient(self, batch):
        return batch.teacher_entropy


@dataclass(frozen=True)
class Negated(Right):
    def divergence(self, student, teacher):
        return -kl(student, teacher)


@dataclass(frozen=True)
class SlopeAtEqual(Right):
    """Value 0 for equal distributions, but the gradient of the mass on the first tokens."""

    def divergence(self, student, teacher):
        excess = (student[:, :3].exp() - teacher[:, :3].exp()).sum(-1)
        return kl(student, teacher) + torch.where(excess < 0, 0.0, excess)  # the slope of clamp at 0 depends on PyTorch


@dataclass(frozen=True)
class NoSlope(Right):
    """A constant, with a gradient of rounding errors."""

    def divergence(self, student, teacher):
        return (student.exp().sum(-1) - 1).abs()


@dataclass(frozen=True)
class FreeNats(Right):
    """A partial objective by design."""

    proper = False

    def divergence(self, student, teacher):
        return (kl(student, teacher) - 0.1).clamp(min=-0.05)


def test_a_valid_objective_passes():
    check_objective(Right())


@pytest.mark.parametrize(
    "objective",
    [
        EntropyGatedKL(top_k=4),
        EntropyGatedKL(top_k=4, mass="plain"),
        SignGatedKL(top_k=4),
        *[
            TopKDivergence(4, "reverse", "student", mass)
            for mass in ("both", "teacher", "plain", "tail", "generalized")
        ],
        TopKDivergence(4, "forward", mass="teacher"),
        TopKPolicyGradient(4),
        TopKPolicyGradient(4, "intersection"),
        FreeNats(),
    ],
    ids=str,
)
def test_partial_sums_pass_if_they_are_declared(objective):
    check_objective(objective)


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        (MeanOfChunk(), ["MeanOfChunk.divergence gives token", "in another", "take no statistics over dim 0"]),
        (Detached(), ["Detached.divergence has no gradient: remove .detach()"]),
        (EstimateOfTheChunk(), ["has an estimate that returns torch.float32 [6, 1] for 6 tokens"]),
        (NotSummed(), ["NotSummed.divergence returns torch.float32 [6, 48] for 6 tokens: return torch.float32 [T]"]),
        (CrossEntropy(), ["if student and teacher are equal: a divergence must be 0 then"]),
        (Negated(), ["Negated.divergence is -", "must be >= 0", "set proper = False"]),
        (SlopeAtEqual(), ["has a gradient of", "if student and teacher are equal", "set proper = False"]),
        (NoSlope(), ["has a gradient of 0 everywhere"]),
        (NotANumber(), ["non-finite value or gradient on a token of probability 0 in both", "fireopd.reductions.kl"]),
        (InPlace(), ["modifies its input distributions"]),
        (
            NegativeCoefficient(),
            ["NegativeCoefficient.coefficient returns the value -", "for token", "finite values >= 0"],
        ),
        (UndeclaredInCoefficient(), ["reads 'teacher_entropy' without declaring it"]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_violations_are_found_and_reported(objective, parts):
    with pytest.raises(AssertionError) as found:
        check_objective(objective)
    text = " ".join(str(found.value).split())
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_expected_gradient_includes_that_of_the_divergence(beta):
    student, teacher = torch.randn(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = student.clone().requires_grad_()
    p, q = logits.softmax(-1), teacher.softmax(-1)
    m = beta * q + (1 - beta) * p
    parts = [(q * (q / p).log()).sum(), (p * (p / q).log()).sum()]
    exact = {0.0: parts[0], 1.0: parts[1]}.get(
        beta, beta * (q * (q / m).log()).sum() + (1 - beta) * (p * (p / m).log()).sum()
    )
    (exact,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(expected_gradient(GeneralizedJSD(beta), student, teacher), exact)
