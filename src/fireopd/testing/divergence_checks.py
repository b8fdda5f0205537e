"""What the divergence of a direct objective must be: a number for each token that only its two distributions decide.

A property is a function of the objective that returns a paragraph for its author, or an empty string.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fireopd.objectives import DirectObjective

TOKENS, VOCABULARY = 6, 12
EQUAL = 1e-5
"""How far from 0 the divergence of equal distributions may be, nats."""

Property = Callable[[DirectObjective], str]


def distributions(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return log-distributions [T, V], some flat and some steep."""
    generator = torch.Generator().manual_seed(seed)
    steepness = torch.linspace(0.1, 6.0, TOKENS)[:, None]
    return (torch.randn(TOKENS, VOCABULARY, generator=generator) * steepness).to(dtype).log_softmax(-1)


def answers_for_each_token(objective: DirectObjective) -> str:
    """The answer is finite float32 [T], also for no token at all."""
    for tokens in (TOKENS, 1, 0):
        answer = objective.divergence(distributions(0)[:tokens], distributions(1)[:tokens])
        if tuple(answer.shape) != (tokens,) or answer.dtype != torch.float32:
            return (
                f"returns {answer.dtype} {list(answer.shape)} for {tokens} tokens: return torch.float32 [T], a sum "
                f"over the vocabulary, dim -1, for each token."
            )
        if not answer.isfinite().all():
            return f"returns {answer.tolist()} for ordinary distributions: return finite numbers."
    return ""


def is_zero_between_equals(objective: DirectObjective) -> str:
    """A student that equals its teacher is nowhere."""
    largest = objective.divergence(distributions(0), distributions(0)).abs().max().item()
    if largest <= EQUAL:
        return ""
    return f"is {largest:.6g} nats where student and teacher are equal: a divergence is 0 there."


def has_a_gradient(objective: DirectObjective) -> str:
    """A gradient reaches the student, finite also where both models rule a token out."""
    logits = distributions(0).clone().requires_grad_()
    ruled_out = torch.zeros(VOCABULARY, dtype=torch.bool)
    ruled_out[3] = True
    for name, closed in (("ordinary distributions", ~ruled_out & False), ("a token that both rule out", ruled_out)):
        student = logits.masked_fill(closed, -torch.inf).log_softmax(-1)
        teacher = distributions(1).masked_fill(closed, -torch.inf).log_softmax(-1)
        answer = objective.divergence(student, teacher)
        if not answer.requires_grad:
            return "has no gradient: leave out .detach() and torch.no_grad where the student's distribution comes in."
        (gradient,) = torch.autograd.grad(answer.sum(), logits)
        if not (answer.isfinite().all() and gradient.isfinite().all()):
            return (
                f"has a value or a gradient that is not finite on {name}: let 0 times a difference of logarithms be 0, "
                f"by torch.where inside the product (fireopd.reductions.kl does)."
            )
    return "" if gradient.abs().max() > 0 else "has a gradient of 0 everywhere: the student learns nothing from it."


def treats_tokens_apart(objective: DirectObjective) -> str:
    """Chunks are cut anywhere: what else is in one changes nothing, nor does its order."""
    student, teacher = distributions(0), distributions(1)
    whole = objective.divergence(student, teacher)
    alone = torch.cat([objective.divergence(student[t : t + 1], teacher[t : t + 1]) for t in range(TOKENS)])
    back = objective.divergence(student.flip(0), teacher.flip(0)).flip(0)
    for other in (alone, back):
        far = ~torch.isclose(whole, other, rtol=1e-4, atol=1e-6)
        if far.any():
            token = int(far.nonzero()[0])
            return (
                f"gives token {token} {whole[token].item():.6g} nats in one chunk and {other[token].item():.6g} in "
                f"another: tokens come in chunks that are cut anywhere, so take no statistics over dim 0. "
                f"coefficient(batch) sees the whole batch."
            )
    return ""


def leaves_its_input_alone(objective: DirectObjective) -> str:
    """The distributions are read again in the backward pass."""
    given = distributions(0), distributions(1)
    objective.divergence(*given)
    same = all(torch.equal(values, distributions(seed)) for seed, values in enumerate(given))
    return "" if same else "modifies the distributions it is given. Avoid operations in place, or .clone() first."


OF_THE_DIVERGENCE: tuple[Property, ...] = (
    answers_for_each_token,
    is_zero_between_equals,
    has_a_gradient,
    treats_tokens_apart,
    leaves_its_input_alone,
)


def wrong_divergence(objective: DirectObjective) -> list[str]:
    """Return a paragraph for each property that the divergence lacks."""
    broken = []
    for holds in OF_THE_DIVERGENCE:
        try:
            problem = holds(objective)
        except Exception as error:  # a strategy can raise anything
            problem = f"raises {type(error).__name__}: {error}."
        broken += [f"{type(objective).__name__}.divergence {problem}"] if problem else []
    return list(dict.fromkeys(broken))
