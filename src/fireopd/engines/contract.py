"""Contract of rollout engines: checks of their responses, weight versions and probes, once per batch or sync."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fireopd.engines.base import RolloutEngine
from fireopd.types import Prompt, Response
from fireopd.types.contracts import ROUNDING
from fireopd.types.strategy import ContractError

__all__ = ["check_version", "checked_probe", "checked_responses"]

KEY = "data.engine"
"""Setting of a run that holds its engine."""


def checked_responses(
    engine: RolloutEngine,
    responses: object,
    prompts: Sequence[Prompt],
    vocabulary: int,
    key: str = KEY,
    limits: Sequence[int] | None = None,
) -> list[Response]:
    """Return an engine's responses, their values as tuples.

    A log-probability may be NaN or -inf: the training step skips such a batch.

    Args:
        engine: the engine.
        responses: its result.
        prompts: prompts of the responses.
        vocabulary: number of token ids of the model.
        key: setting that holds the engine.
        limits: maximum number of tokens of each response; None for that of the engine.

    Raises:
        ContractError: unless there is one `Response` per prompt, of 1 to `max_response_length` ids in the vocabulary,
            each with a log-probability <= 0.
    """
    if not isinstance(responses, list | tuple):
        raise _error(engine, f"returned a {type(responses).__name__}", "return a list of Response", key)
    if len(responses) != len(prompts):
        problem = f"returned {len(responses)} responses to {len(prompts)} prompts"
        raise _error(engine, problem, "return one response per prompt, in the order of the prompts", key)
    limits = [engine.max_response_length] * len(prompts) if limits is None else limits
    for prompt, response, limit in zip(prompts, responses, limits, strict=True):
        problem, remedy = _problem(response, limit, vocabulary)
        if problem:
            raise _error(engine, f"returned {problem} for the prompt {prompt.id}", remedy, key)
    return [_plain(response) for response in responses]


def _plain(response: Response) -> Response:
    """Return a response with tuples in the place of tensors, arrays and lists."""
    if isinstance(response.tokens, tuple) and isinstance(response.logprobs, tuple):
        return response
    tokens, logprobs = (torch.as_tensor(values).tolist() for values in (response.tokens, response.logprobs))
    return Response(tuple(tokens), tuple(logprobs), response.finished)


def _problem(response: object, longest: int, vocabulary: int) -> tuple[str, str]:
    """Return problem and remedy of a response; the problem is empty if it has none."""
    if not isinstance(response, Response):
        return f"a {type(response).__name__}", "return a Response(tokens, logprobs, finished)"
    tokens, logprobs = _tensor(response.tokens), _tensor(response.logprobs)
    if not isinstance(response.finished, bool):
        return f"finished={response.finished!r}", "return False for a response that was cut, True otherwise"
    if tokens is None or logprobs is None or len(tokens) != len(logprobs):
        given = f"{_size(response.tokens)} tokens and {_size(response.logprobs)} log-probabilities"
        return given, "return a tuple of ids, and a tuple with the log-probability of each"
    if not len(tokens):
        return "a response without tokens", "return at least one token: the end-of-sequence token belongs to a response"
    if len(tokens) > longest:
        return f"a response of {len(tokens)} tokens", f"cut it at max_response_length, {longest}, with finished=False"
    if tokens.dtype != torch.int64:
        return f"token ids of {tokens.dtype}", "return integers"
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        wrong = next(token for token in tokens.tolist() if not 0 <= token < vocabulary)
        return f"the token id {wrong}", f"return ids from 0 to {vocabulary - 1}, those of the model's vocabulary"
    if (logprobs > ROUNDING).any():
        return f"the log-probability {logprobs.max().item():.6g}", "return log-probabilities in nats, <= 0"
    return "", ""


def checked_probe(engine: RolloutEngine, probe: object, tokens: Sequence[int]) -> dict[str, Tensor]:
    """Return the log-probabilities of a probe by copy of the weights, float32 [len(tokens) - 1] each.

    Raises:
        ContractError: unless each copy has one finite log-probability <= 0 for each token but the first.
    """
    remedy = "return {name: log-probabilities of the second and later tokens}, for each copy of the weights"
    if not isinstance(probe, dict):
        raise _error(engine, f"returned a {type(probe).__name__} from probe", remedy)
    checked = {}
    for name, logprobs in probe.items():
        values = _tensor(logprobs)
        if values is None or len(values) != len(tokens) - 1:
            problem = f"returned {_size(logprobs)} values of {name} for a probe of {len(tokens)} tokens"
            raise _error(engine, problem, remedy)
        wrong = [value for value in values.tolist() if not (math.isfinite(value) and value <= ROUNDING)]
        if wrong:
            problem = f"returned the log-probability {wrong[0]:.6g} of {name} for a probe"
            raise _error(engine, problem, "return finite log-probabilities in nats, <= 0, of the weights just loaded")
        checked[str(name)] = values.float()
    return checked


def check_version(engine: RolloutEngine, policy_version: int) -> None:
    """Check the version of an engine's weights after `load_weights`.

    Raises:
        ContractError: if it is another one.
    """
    if engine.policy_version != policy_version:
        problem = f"has policy_version {engine.policy_version} after load_weights(..., {policy_version})"
        raise _error(engine, problem, "set self.policy_version = policy_version once all tensors are copied")


def _tensor(values: object) -> Tensor | None:
    """Return a sequence of numbers as a tensor [n]; None if it is not one."""
    try:
        made = torch.as_tensor(values, device="cpu") if isinstance(values, Tensor) else torch.tensor(values)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return made if made.ndim == 1 else None


def _size(values: object) -> str:
    """Return the number of values for messages, or their type if they are not a sequence of numbers."""
    found = _tensor(values)
    return f"a {type(values).__name__} as" if found is None else str(len(found))


def _error(engine: RolloutEngine, problem: str, remedy: str, key: str = KEY) -> ContractError:
    return ContractError.of(key, engine, "check_engine", problem, remedy)
