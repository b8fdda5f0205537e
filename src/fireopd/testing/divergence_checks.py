"""Checks of the divergence of a direct objective.

Each check is a function of the objective that returns a paragraph for its author; empty if the check passes.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from fireopd.objectives import DirectObjective

__all__ = ["DIVERGENCE_CHECKS", "divergence_violations"]

TOKENS = 6
VOCABULARY = 48
"""Number of tokens, larger than the default of every setting that truncates a vocabulary."""
EQUAL = 1e-5
"""Tolerance of divergences and of gradients that must be 0, nats."""

Check = Callable[[DirectObjective], str]


def distributions(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return log-distributions [T, V], from flat to peaked."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.linspace(0.1, 6.0, TOKENS)[:, None]
    return (torch.randn(TOKENS, VOCABULARY, generator=generator) * sharpness).to(dtype).log_softmax(-1)


def returns_one_value_per_token(objective: DirectObjective) -> str:
    """Check that divergence and estimate are finite float32 [T], also for T = 0."""
    for tokens, name in product((TOKENS, 1, 0), ("divergence", "estimate")):
        sampled, which = ((torch.arange(tokens),), "has an estimate that ") if name == "estimate" else ((), "")
        answer = getattr(objective, name)(distributions(0)[:tokens], distributions(1)[:tokens], *sampled)
        if tuple(answer.shape) != (tokens,) or answer.dtype not in (torch.float32, torch.float64):
            return (
                f"{which}returns {answer.dtype} {list(answer.shape)} for {tokens} tokens: return torch.float32 [T], a "
                f"sum over the vocabulary (dim -1) for each token."
            )
        if not answer.isfinite().all():
            return f"{which}returns {answer.tolist()} for ordinary distributions: return finite values."
    return ""


PARTIAL = "If it is a partial sum by design, set proper = False in the class."
"""Remedy for objectives whose divergence is not one."""


def is_not_negative(objective: DirectObjective) -> str:
    """Check that a proper divergence is >= 0."""
    lowest = objective.divergence(distributions(0), distributions(1)).min().item()
    if not objective.proper or lowest >= -EQUAL:
        return ""
    return f"is {lowest:.6g} nats for ordinary distributions: a divergence must be >= 0. {PARTIAL}"


def is_zero_for_equal_distributions(objective: DirectObjective) -> str:
    """Check that a proper divergence is 0, with a gradient of 0, if student and teacher are equal."""
    if not objective.proper:
        return ""
    logits = distributions(0).clone().requires_grad_()
    answer = objective.divergence(logits.log_softmax(-1), distributions(0))
    largest = answer.abs().max().item()
    if largest > EQUAL:
        return f"is {largest:.6g} nats if student and teacher are equal: a divergence must be 0 then. {PARTIAL}"
    slope = torch.autograd.grad(answer.sum(), logits)[0].abs().max().item() if answer.requires_grad else 0.0
    if slope <= EQUAL:
        return ""
    return (
        f"has a gradient of {slope:.6g} if student and teacher are equal, so training would move the student away from "
        f"its teacher: it must be 0 then. {PARTIAL}"
    )


def has_a_gradient(objective: DirectObjective) -> str:
    """Check that the student has a gradient, finite also if both models give a token the probability 0."""
    logits = distributions(0).clone().requires_grad_()
    excluded = torch.zeros(VOCABULARY, dtype=torch.bool)
    excluded[3] = True
    cases = {"ordinary distributions": ~excluded & False, "a token of probability 0 in both": excluded}
    for name, masked in cases.items():
        student = logits.masked_fill(masked, -torch.inf).log_softmax(-1)
        similar = distributions(0) + 0.2 * distributions(1)  # so that their likeliest tokens overlap
        teacher = similar.masked_fill(masked, -torch.inf).log_softmax(-1)
        answer = objective.divergence(student, teacher)
        if not answer.requires_grad:
            return "has no gradient: remove .detach() and torch.no_grad from the path of the student's distribution."
        (gradient,) = torch.autograd.grad(answer.sum(), logits)
        if not (answer.isfinite().all() and gradient.isfinite().all()):
            return (
                f"has a non-finite value or gradient on {name}: mask the difference of logarithms by torch.where "
                f"inside the product, as fireopd.reductions.kl does."
            )
    return "" if gradient.abs().max() > EQUAL else "has a gradient of 0 everywhere: the student cannot learn from it."


def is_independent_per_token(objective: DirectObjective) -> str:
    """Check that the divergence of a token does not depend on other tokens of its chunk, or on their order."""
    student, teacher = distributions(0), distributions(1)
    whole = objective.divergence(student, teacher)
    alone = torch.cat([objective.divergence(student[t : t + 1], teacher[t : t + 1]) for t in range(TOKENS)])
    reordered = objective.divergence(student.flip(0), teacher.flip(0)).flip(0)
    for other in (alone, reordered):
        far = ~torch.isclose(whole, other, rtol=1e-4, atol=1e-6)
        if far.any():
            token = int(far.nonzero()[0])
            return (
                f"gives token {token} {whole[token].item():.6g} nats in one chunk and {other[token].item():.6g} in "
                f"another: chunk boundaries are arbitrary, so take no statistics over dim 0. "
                f"coefficient(batch) sees the whole batch."
            )
    return ""


def does_not_modify_its_input(objective: DirectObjective) -> str:
    """Check that the distributions, which the backward pass reads again, are unchanged."""
    extreme = (torch.arange(VOCABULARY) % 3 > 0) * 200.0  # log-probabilities far below those of `distributions`
    same = True
    for shift in (torch.zeros(VOCABULARY), extreme):
        inputs = [(distributions(seed) + shift.roll(seed)).log_softmax(-1) for seed in (0, 1)]
        before = [values.clone() for values in inputs]
        objective.divergence(*inputs)
        same &= all(map(torch.equal, inputs, before))
    return "" if same else "modifies its input distributions. Avoid in-place operations, or call .clone() first."


DIVERGENCE_CHECKS: tuple[Check, ...] = (
    returns_one_value_per_token,
    is_not_negative,
    is_zero_for_equal_distributions,
    has_a_gradient,
    is_independent_per_token,
    does_not_modify_its_input,
)


def divergence_violations(objective: DirectObjective) -> list[str]:
    """Return one paragraph per failed check of the divergence."""
    found = []
    for check in DIVERGENCE_CHECKS:
        try:
            problem = check(objective)
        except Exception as error:  # a strategy can raise anything
            problem = f"raises {type(error).__name__}: {error}."
        found += [f"{type(objective).__name__}.divergence {problem}"] if problem else []
    return list(dict.fromkeys(found))
