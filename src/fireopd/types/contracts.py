"""Checks of strategies' answers: shape, dtype and range, once per batch, with messages for the strategy's author."""

import torch
from torch import Tensor

from fireopd.types.scores import ScoredBatch
from fireopd.types.strategy import ContractError, Strategy

__all__ = [
    "ROUNDING",
    "checked_advantage",
    "checked_coefficient",
    "checked_divergence",
    "checked_keep",
    "checked_reasons",
    "checked_weight",
]

ROUNDING = 0.01
"""Amount in nats by which a log-probability may exceed 0, or an entropy fall below 0, through rounding."""


def checked_keep(strategy: Strategy, keep: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a filter's answer if it is bool [N]; raise `ContractError` otherwise."""
    _check_shape(strategy, keep, tuple(batch.finished.shape), "[N], one value per trajectory")
    if keep.dtype != torch.bool:
        raise ContractError.by(strategy, f"returned {keep.dtype}", "return torch.bool, True to keep")
    return keep


def checked_reasons(strategy: Strategy, reasons: list[str], batch: ScoredBatch) -> list[str]:
    """Return a filter's reasons if they are N strings; raise `ContractError` otherwise."""
    expected = len(batch.teachers)
    if not (isinstance(reasons, list) and len(reasons) == expected and all(isinstance(x, str) for x in reasons)):
        raise ContractError.by(strategy, f"returned the reasons {reasons!r}", f"return a list of {expected} strings")
    return reasons


def checked_weight(strategy: Strategy, weight: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a weighter's answer, set to 0 off the response mask.

    Raises:
        ContractError: unless it is float [N, L], finite and >= 0.
    """
    return _checked_factor(strategy, weight, batch, "weight")


def checked_advantage(strategy: Strategy, advantage: Tensor, batch: ScoredBatch) -> Tensor:
    """Return an objective's advantages. Non-finite values are allowed: the training step skips such a batch.

    Raises:
        ContractError: unless they are float [N, L].
    """
    _check_shape(strategy, advantage, tuple(batch.tokens.shape), "[N, L], one value per token")
    _check_float(strategy, advantage)
    return advantage.detach()


def checked_coefficient(strategy: Strategy, coefficient: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a direct objective's coefficients, set to 0 off the response mask.

    Raises:
        ContractError: unless they are float [N, L], finite and >= 0.
    """
    return _checked_factor(strategy, coefficient, batch, "coefficient")


def checked_divergence(strategy: Strategy, divergence: Tensor, student: Tensor) -> Tensor:
    """Return a direct objective's divergence of log-distributions [T, V], with its gradient.

    Raises:
        ContractError: unless it is float [T].
    """
    _check_shape(strategy, divergence, tuple(student.shape[:1]), "[T], one value per token")
    _check_float(strategy, divergence)
    return divergence


def _checked_factor(strategy: Strategy, factor: Tensor, batch: ScoredBatch, kind: str) -> Tensor:
    _check_shape(strategy, factor, tuple(batch.tokens.shape), "[N, L], one value per token")
    _check_float(strategy, factor)
    factor = torch.where(batch.response_mask, factor.detach(), 0.0)
    factor = factor.to(torch.promote_types(factor.dtype, torch.float32))
    wrong = ~(factor.isfinite() & (factor >= 0))
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        problem = f"returned the {kind} {factor[row, token].item()} for token {token} of trajectory {row}"
        raise ContractError.by(strategy, problem, f"return finite {kind}s >= 0")
    return factor


def _check_shape(strategy: Strategy, answer: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    if not isinstance(answer, Tensor):
        raise ContractError.by(strategy, f"returned {answer!r}", f"return a tensor {meaning}")
    if tuple(answer.shape) != shape:
        problem = f"returned shape {list(answer.shape)}, expected {list(shape)}"
        raise ContractError.by(strategy, problem, f"return {meaning}")


def _check_float(strategy: Strategy, answer: Tensor) -> None:
    if not answer.is_floating_point():
        raise ContractError.by(strategy, f"returned {answer.dtype}", "return a floating-point tensor")
