"""Contract of teachers: checks of their scores, once per batch."""

from typing import TypeVar

import torch
from torch import Tensor

from fireopd.models.distributions import TeacherDistributions
from fireopd.teachers.base import Teacher
from fireopd.types import RolloutBatch, TokenScores
from fireopd.types.contracts import ROUNDING
from fireopd.types.strategy import ContractError

__all__ = ["checked_distributions", "checked_scores"]

Kind = TypeVar("Kind")


def checked_scores(key: str, teacher: Teacher, scores: object, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
    """Return a teacher's scores in the dtype of the rollouts, 0 off the response mask; the entropy only if requested.

    NaN, and entropies that are infinite, are allowed: the training step skips such a batch and names the teacher.

    Args:
        key: setting that holds the teacher.
        teacher: the teacher.
        scores: its result.
        rollouts: scored trajectories.
        entropy: whether entropies were requested.

    Raises:
        ContractError: unless log-probabilities are float [B, L] and <= 0, and requested entropies float [B, L] and
            >= 0.
    """
    scores = _checked_type(key, teacher, scores, TokenScores)
    logprobs = _checked_values(key, teacher, "logprobs", scores.logprobs, rollouts, sign=-1)
    if not entropy:
        return TokenScores(logprobs, hidden_states=scores.hidden_states)
    if scores.entropy is None:
        remedy = "return TokenScores(logprobs, entropy) if entropy=True"
        raise _error(key, teacher, "returned entropy=None although the entropies were requested", remedy)
    entropies = _checked_values(key, teacher, "entropy", scores.entropy, rollouts, sign=1)
    return TokenScores(logprobs, entropies, hidden_states=scores.hidden_states)


def checked_distributions(
    key: str, teacher: Teacher, answer: object, rollouts: RolloutBatch, *, entropy: bool
) -> tuple[TokenScores, TeacherDistributions]:
    """Return a teacher's scores and distributions.

    Raises:
        ContractError: as `checked_scores`, or unless each row has one hidden state per response token, and a head.
    """
    scores, distributions = _checked_pair(key, teacher, answer)
    lengths = rollouts.response_mask[:, 1:].sum(-1).tolist()
    states, heads = distributions.hidden_states, distributions.heads
    if not len(states) == len(heads) == len(lengths):
        problem = f"returned hidden states of {len(states)} rows and {len(heads)} heads for {len(lengths)} trajectories"
        raise _error(key, teacher, problem, "return hidden states and a head for each trajectory")
    for row, (values, length) in enumerate(zip(states, lengths, strict=True)):
        if values.ndim != 2 or len(values) != length:
            problem = f"returned hidden states {list(values.shape)} for trajectory {row} of {length} response tokens"
            raise _error(key, teacher, problem, "return [response tokens, d] for each trajectory")
    return checked_scores(key, teacher, scores, rollouts, entropy=entropy), distributions


def _checked_pair(key: str, teacher: Teacher, answer: object) -> tuple[object, TeacherDistributions]:
    if not (isinstance(answer, tuple) and len(answer) == 2):
        problem, remedy = f"returned a {type(answer).__name__}", "return a pair of TokenScores and TeacherDistributions"
        raise _error(key, teacher, problem, remedy)
    return answer[0], _checked_type(key, teacher, answer[1], TeacherDistributions)


def _checked_type(key: str, teacher: Teacher, value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise _error(key, teacher, f"returned a {type(value).__name__}", f"return a {kind.__name__}")
    return value


def _checked_values(key: str, teacher: Teacher, name: str, values: object, rollouts: RolloutBatch, sign: int) -> Tensor:
    shape = list(rollouts.tokens.shape)
    meaning = f"return {name} as float32 {shape}, one value per token, 0 off rollouts.response_mask"
    if not isinstance(values, Tensor):
        raise _error(key, teacher, f"returned {name} as a {type(values).__name__}", meaning)
    if list(values.shape) != shape:
        raise _error(key, teacher, f"returned {name} of shape {list(values.shape)}, expected {shape}", meaning)
    if not values.is_floating_point():
        raise _error(key, teacher, f"returned {name} of {values.dtype}", meaning)
    if values.device != rollouts.tokens.device:
        problem = f"returned {name} on {values.device}, the rollouts are on {rollouts.tokens.device}"
        raise _error(key, teacher, problem, f"move {name} to the device of the rollouts")
    values = torch.where(rollouts.response_mask, values.detach(), 0.0).to(rollouts.sampling_logprobs.dtype)
    wrong = values * sign < -ROUNDING
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        problem = f"returned {name} {values[row, token].item():.6g} for token {token} of trajectory {row}"
        remedy = "return log-probabilities in nats, <= 0" if sign < 0 else "return entropies in nats, >= 0"
        raise _error(key, teacher, problem, remedy)
    return values


def _error(key: str, teacher: Teacher, problem: str, remedy: str) -> ContractError:
    return ContractError.of(key, teacher, "check_teacher", problem, remedy)
