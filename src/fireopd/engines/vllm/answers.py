"""Validation of the answers of a vLLM server. Every field that is used is checked; none is trusted."""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fireopd.engines.vllm.bounded_http import ServerError
from fireopd.types import Response

__all__ = ["Expected", "read_count", "read_logprobs", "read_object", "read_response", "read_scores", "read_text"]

ROUNDING = 1e-6
"""Largest positive log-probability that rounding explains, nats."""
MISSING = -9999.0
"""Log-probability that vLLM reports for minus infinity and for missing values."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Properties of a valid response."""

    max_length: int
    """Maximum number of tokens."""
    stops: frozenset[int]
    """Token ids that end a response."""
    vocabulary: int
    """Number of token ids of the model."""
    version: str
    """Version of the weights."""


def read_response(answer: Any, expected: Expected, *, greedy: bool = False) -> Response:
    """Return the response of an answer of /inference/v1/generate.

    Args:
        answer: JSON value.
        expected: properties of a valid response.
        greedy: whether the most likely tokens were selected. For these, vLLM returns the log-probability before the
            choice; after it, the probability is 1.

    Raises:
        ServerError: if the response is invalid or from weights of another version.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not (isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict)):
        raise ServerError(f"did not return a response ({_shown(choices)} in the place of one choice)")
    [choice] = choices
    tokens = _tokens(choice.get("token_ids"), expected)
    _check_versions(choice.get("weight_versions"), expected.version, len(tokens))
    logprobs = _sampled_logprobs(choice.get("logprobs"), tokens)
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        raise _invalid(f"its finish reason is {_shown(reason)}")
    finished = bool(reason == "stop")
    if finished != (tokens[-1] in expected.stops):
        raise _invalid(f"marked as {'finished' if finished else 'cut'}, but its last token is {tokens[-1]}")
    if not finished and len(tokens) < expected.max_length:
        cut = f"cut after {len(tokens)} of {expected.max_length} tokens"
        raise _invalid(f"{cut}; its --max-model-len may be too small")
    return Response(tokens, tuple(0.0 for _ in logprobs) if greedy else logprobs, finished=finished)


def read_logprobs(answer: Any, tokens: Sequence[int]) -> list[float]:
    """Return the log-probabilities of the second and later prompt tokens, in nats.

    Raises:
        ServerError: if one of them is missing or invalid.
    """
    rows = answer.get("prompt_logprobs") if isinstance(answer, dict) else None
    if not (isinstance(rows, list) and len(rows) == len(tokens)):
        raise ServerError(f"did not return log-probabilities of {len(tokens)} tokens ({_shown(rows)})")
    found = []
    for token, row in zip(tokens[1:], rows[1:], strict=True):
        entry = row.get(str(token)) if isinstance(row, dict) else None
        if not isinstance(entry, dict):
            raise ServerError(f"did not return the log-probability of token {token} ({_shown(row)})")
        found.append(_logprob(entry.get("logprob")))
    return found


def read_scores(content: bytes, count: int, vocabulary: int) -> Tensor:
    """Return log-probability and entropy of each token in nats, float32 [count, 2].

    Args:
        content: answer of a teacher server, little-endian float32 pairs.
        count: number of tokens that were to be scored.
        vocabulary: number of outputs of the teacher.

    Raises:
        ServerError: if there is another number of values, or one of them is impossible.
    """
    if len(content) != 8 * count:
        raise ServerError(f"returned {len(content)} bytes of scores for {count} tokens, expected {8 * count}")
    scores = torch.frombuffer(bytearray(content), dtype=torch.float32).view(count, 2)
    logprobs, entropies = scores.unbind(-1)
    wrong = ~(logprobs.isfinite() & (logprobs <= ROUNDING))
    if wrong.any():
        raise _invalid(f"the log-probability {logprobs[wrong][0].item():.6g} is positive or not finite")
    wrong = ~((entropies >= -ROUNDING) & (entropies <= math.log(vocabulary) * (1 + 1e-5) + ROUNDING))
    if wrong.any():
        problem = f"the entropy {entropies[wrong][0].item():.6g} is not between 0 and log({vocabulary})"
        raise _invalid(problem)
    return scores.clone()


def read_object(answer: Any, name: str) -> dict[str, Any]:
    """Return the JSON object under a name.

    Raises:
        ServerError: if there is none.
    """
    return dict(_field(answer, name, dict, "an object"))


def read_text(answer: Any, name: str) -> str:
    """Return the text under a name.

    Raises:
        ServerError: if there is none.
    """
    return str(_field(answer, name, str, "text"))


def read_count(answer: Any, name: str) -> int:
    """Return the integer greater than 0 under a name.

    Raises:
        ServerError: if there is none.
    """
    count = _field(answer, name, int, "a count")
    if isinstance(count, bool) or count < 1:
        raise ServerError(f"returned {_shown(count)} as {name!r}, which must be greater than 0")
    return int(count)


def _field(answer: Any, name: str, kind: type, meaning: str) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise ServerError(f"returned {_shown(value)} as {name!r}, expected {meaning}")
    return value


def _tokens(ids: Any, expected: Expected) -> tuple[int, ...]:
    if not isinstance(ids, list):
        raise _invalid(f"its tokens are {_shown(ids)}")
    if not 1 <= len(ids) <= expected.max_length:
        raise _invalid(f"{len(ids)} tokens instead of 1 to {expected.max_length}")
    for token in ids:
        if type(token) is not int:  # bool is a subclass of int
            raise _invalid(f"its token {_shown(token)} is no token id")
        if not 0 <= token < expected.vocabulary:
            raise _invalid(f"its token {_shown(token)} is not in the vocabulary of {expected.vocabulary}")
    early = [token for token in ids[:-1] if token in expected.stops]
    if early:
        raise _invalid(f"it continues after the stop token {early[0]}")
    return tuple(ids)


def _check_versions(spans: Any, version: str, length: int) -> None:
    """Check that spans (version, start, end) cover all tokens and have the version."""
    if not (isinstance(spans, list) and spans and all(isinstance(span, dict) for span in spans)):
        raise _invalid(f"its weight versions are {_shown(spans)}")
    others = [span.get("version") for span in spans if span.get("version") != version]
    if others:
        raise ServerError(f"sampled from weights {_shown(others[0])} instead of {version!r}")
    starts, ends = [span.get("start") for span in spans], [span.get("end") for span in spans]
    if [*starts, length] != [0, *ends]:
        raise _invalid(f"its weight versions do not cover its {length} tokens ({_shown(spans)})")


def _sampled_logprobs(logprobs: Any, tokens: Sequence[int]) -> tuple[float, ...]:
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise _invalid(f"its log-probabilities are {_shown(logprobs)}")
    if len(entries) != len(tokens):
        raise _invalid(f"{len(entries)} log-probabilities for {len(tokens)} tokens")
    for token, entry in zip(tokens, entries, strict=True):
        label = entry.get("token_id")
        if type(label) is not int or label != token:
            raise _invalid(f"the log-probability of token {_shown(label)} in the place of {token}")
    return tuple(_logprob(entry.get("logprob")) for entry in entries)


def _logprob(value: Any) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not MISSING < number <= ROUNDING:
        raise _invalid(f"the log-probability {_shown(value)} is missing, positive or not finite")
    return number


def _invalid(problem: str) -> ServerError:
    return ServerError(f"returned an invalid response: {problem}")


def _shown(value: Any) -> str:
    """Return a short representation of any value."""
    return reprlib.repr(value)
