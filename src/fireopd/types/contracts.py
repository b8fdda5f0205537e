"""What a strategy must answer: shape, type and range, checked once a batch, with messages for the strategy's author."""

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.strategy import ContractError, Strategy


def checked_keep(strategy: Strategy, keep: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a filter's answer if it is bool [N]; raise `ContractError` if not."""
    _check_shape(strategy, keep, tuple(batch.finished.shape), "[N], one for each trajectory")
    if keep.dtype != torch.bool:
        raise ContractError.by(strategy, f"returned {keep.dtype}", "return torch.bool, True to keep")
    return keep


def checked_reasons(strategy: Strategy, reasons: list[str], batch: ScoredBatch) -> list[str]:
    """Return a filter's words on each trajectory if there are N of them; raise `ContractError` if not."""
    expected = len(batch.teachers)
    if not (isinstance(reasons, list) and len(reasons) == expected and all(isinstance(x, str) for x in reasons)):
        raise ContractError.by(strategy, f"gave the reasons {reasons!r}", f"return a list of {expected} strings")
    return reasons


def checked_weight(strategy: Strategy, weight: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a weighter's answer, 0 off the response mask, if it is float [N, L], finite and not negative.

    Raises:
        ContractError: if it is not.
    """
    return _checked_factor(strategy, weight, batch, "weight")


def checked_advantage(strategy: Strategy, advantage: Tensor, batch: ScoredBatch) -> Tensor:
    """Return an objective's answer if it is float [N, L]; a value that is not finite is left to the step's guard.

    Raises:
        ContractError: if it is not.
    """
    _check_shape(strategy, advantage, tuple(batch.tokens.shape), "[N, L], one for each token")
    _check_float(strategy, advantage)
    return advantage.detach()


def checked_coefficient(strategy: Strategy, coefficient: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a direct objective's coefficients, 0 off the response mask, if they are float [N, L], finite and >= 0.

    Raises:
        ContractError: if they are not.
    """
    return _checked_factor(strategy, coefficient, batch, "coefficient")


def checked_divergence(strategy: Strategy, divergence: Tensor, student: Tensor) -> Tensor:
    """Return a direct objective's divergence of log-distributions [T, V] if it is float [T], with its gradient.

    Raises:
        ContractError: if it is not.
    """
    _check_shape(strategy, divergence, tuple(student.shape[:1]), "[T], one for each of the tokens")
    _check_float(strategy, divergence)
    return divergence


def _checked_factor(strategy: Strategy, factor: Tensor, batch: ScoredBatch, kind: str) -> Tensor:
    _check_shape(strategy, factor, tuple(batch.tokens.shape), "[N, L], one for each token")
    _check_float(strategy, factor)
    factor = torch.where(batch.response_mask, factor.detach(), 0.0)
    wrong = ~(factor.isfinite() & (factor >= 0))
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        problem = f"gave token {token} of trajectory {row} the {kind} {factor[row, token].item()}"
        raise ContractError.by(strategy, problem, f"return {kind}s that are finite and >= 0")
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
