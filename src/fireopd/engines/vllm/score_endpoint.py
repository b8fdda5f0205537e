"""Endpoints of a teacher server: its card, and the scores of a trajectory."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from torch import Tensor

from fireopd.engines.vllm.scoring_model import TASK
from fireopd.engines.vllm.teacher_card import TeacherCard

__all__ = ["CARD_PATH", "SCORE_PATH", "answer_card", "answer_scores", "until_disconnected"]

CARD_PATH = "/fireopd/teacher"
"""Path of the card."""
SCORE_PATH = "/fireopd/score"
"""Path of the scores."""

Receive = Callable[[], Awaitable[dict[str, Any]]]


def answer_card(state: Any, card: TeacherCard) -> bytes:
    """Return the card and the context length of the server as JSON.

    Args:
        state: state of vLLM's application.
        card: card of the server.
    """
    longest = state.engine_client.vllm_config.model_config.max_model_len
    return json.dumps(json.loads(card.as_json()) | {"context": longest}).encode()


async def answer_scores(state: Any, body: bytes) -> bytes:
    """Return log-probability and entropy of the tokens from `first` on, little-endian float32 pairs.

    Args:
        state: state of vLLM's application.
        body: JSON object of `token_ids`, `first` (at least 1), and `temperature`.

    Raises:
        ValueError: if the request is invalid, or the sequence too long.
    """
    tokens, first, temperature = _parsed(body)
    scores = await _score(state.engine_client, tokens, first, temperature, cached=True)
    if len(scores) < len(tokens) - first:  # some predictions came from the prefix cache
        scores = await _score(state.engine_client, tokens, first, temperature, cached=False)
    return scores.contiguous().numpy().astype("<f4").tobytes()


def _parsed(body: bytes) -> tuple[list[int], int, float]:
    try:
        request = json.loads(body)
        tokens, first, temperature = request["token_ids"], request["first"], request["temperature"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError("expected a JSON object of token_ids, first and temperature") from error
    if not (isinstance(tokens, list) and all(type(token) is int and token >= 0 for token in tokens)):
        raise ValueError("token_ids must be a list of token ids")
    if not (type(first) is int and 1 <= first < len(tokens)):
        raise ValueError(f"first must be an index of token_ids and at least 1, got {first!r}")
    if not (type(temperature) in (int, float) and 0 < temperature < float("inf")):
        raise ValueError(f"temperature must be greater than 0, got {temperature!r}")
    return tokens, first, float(temperature)


async def _score(engine: Any, tokens: list[int], first: int, temperature: float, *, cached: bool) -> Tensor:
    """Return the scores of one sequence, float32 [tokens, 2]; fewer if the prefix cache supplies predictions."""
    extra = {"first": first, "temperature": temperature}
    parameters = pooling_parameters(task=TASK, skip_reading_prefix_cache=not cached, extra_kwargs=extra)
    scores: Tensor | None = None
    async for output in engine.encode({"prompt_token_ids": tokens}, parameters, f"score-{uuid4().hex}"):
        scores = output.outputs.data
    assert scores is not None
    return scores


def pooling_parameters(**settings: Any) -> Any:
    """Return vLLM's parameters of a request."""
    from vllm import PoolingParams

    return PoolingParams(**settings)


async def until_disconnected(work: Awaitable[bytes], receive: Receive) -> bytes | None:
    """Return the result of a request; cancel it and return None if the client disconnects."""
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_disconnect(receive))
    await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
    disconnected.cancel()
    if not task.done():
        task.cancel()
        return None
    return task.result()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
