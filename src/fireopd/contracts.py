"""What a strategy must answer: shape, type and range, checked once a batch, with messages for the strategy's author."""

import torch
from torch import Tensor

from fireopd.types import ScoredBatch


def checked_keep(strategy: object, keep: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a filter's answer if it is bool [N]."""
    _check_shape(strategy, keep, tuple(batch.finished.shape), "[N], one for each trajectory")
    if keep.dtype != torch.bool:
        raise ValueError(f"{_name(strategy)} returned {keep.dtype}: a filter returns torch.bool, True to keep")
    return keep


def checked_weight(strategy: object, weight: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a weighter's answer, 0 off the response mask, if it is float [N, L], finite and not negative."""
    _check_shape(strategy, weight, tuple(batch.tokens.shape), "[N, L], one for each token")
    _check_float(strategy, weight)
    return _checked_factor(strategy, weight, batch, "weight")


def checked_advantage(strategy: object, advantage: Tensor, batch: ScoredBatch) -> Tensor:
    """Return an objective's answer if it is float [N, L]; a value that is not finite is left to the step's guard."""
    _check_shape(strategy, advantage, tuple(batch.tokens.shape), "[N, L], one for each token")
    _check_float(strategy, advantage)
    return advantage.detach()


def checked_coefficient(strategy: object, coefficient: Tensor, batch: ScoredBatch) -> Tensor:
    """Return a direct objective's coefficients, 0 off the response mask, if they are float [N, L], finite and >= 0."""
    _check_shape(strategy, coefficient, tuple(batch.tokens.shape), "[N, L], one for each token")
    _check_float(strategy, coefficient)
    return _checked_factor(strategy, coefficient, batch, "coefficient")


def checked_divergence(strategy: object, divergence: Tensor, student: Tensor) -> Tensor:
    """Return a direct objective's divergence of log-distributions [T, V] if it is float [T], with its gradient."""
    _check_shape(strategy, divergence, tuple(student.shape[:1]), "[T], one for each of the tokens")
    _check_float(strategy, divergence)
    return divergence


def _checked_factor(strategy: object, factor: Tensor, batch: ScoredBatch, kind: str) -> Tensor:
    factor = torch.where(batch.response_mask, factor.detach(), 0.0)
    wrong = ~(factor.isfinite() & (factor >= 0))
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        value = factor[row, token].item()
        raise ValueError(
            f"{_name(strategy)} gave token {token} of trajectory {row} the {kind} {value}: {kind}s are finite and >= 0"
        )
    return factor


def _check_shape(strategy: object, answer: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    if tuple(answer.shape) != shape:
        raise ValueError(f"{_name(strategy)} returned shape {list(answer.shape)}, expected {list(shape)} {meaning}")


def _check_float(strategy: object, answer: Tensor) -> None:
    if not answer.is_floating_point():
        raise ValueError(f"{_name(strategy)} returned {answer.dtype}: return a floating-point tensor")


def _name(strategy: object) -> str:
    return type(strategy).__name__
