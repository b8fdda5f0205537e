"""Client of one vLLM server that was started with `fireopd serve`."""

from collections.abc import Sequence
from typing import Any

import httpx
from torch import Tensor

from fireopd.engines.vllm.answers import (
    Expected,
    read_count,
    read_logprobs,
    read_object,
    read_response,
    read_scores,
    read_text,
)
from fireopd.engines.vllm.bounded_http import URL_REMEDY, BoundedClient, EndedError, RefusedError, ServerError
from fireopd.engines.vllm.score_endpoint import CARD_PATH, SCORE_PATH
from fireopd.engines.vllm.teacher_card import TeacherCard
from fireopd.types import Response, Sampling

__all__ = ["EndedError", "RefusedError", "ServerClient", "ServerError", "checked_url"]

GENERATE = "/inference/v1/generate"
SECONDS_PER_TOKEN = 0.1
"""Additional time limit for each token of a response, or of a trajectory to score, seconds: 10 tokens/s are slow."""
BYTES_PER_TOKEN = 1024
"""Limit on the size of an answer for each token, bytes; vLLM needs about 200."""
QUICK = 5.0
"""Time limit of a health check, seconds."""


class ServerClient:
    """Client of one server. Thread-safe."""

    def __init__(self, url: str, timeout: float, token: str | None = None) -> None:
        """Store the address without sending a request.

        Args:
            url: address, for example http://127.0.0.1:8001.
            timeout: time limit of an answer in seconds, without the time for the tokens of a response.
            token: token of the server.
        """
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._http = BoundedClient(self.url, token)

    def close(self) -> None:
        """Cancel the running requests and close the connections."""
        self._http.close()

    def cancel(self) -> None:
        """End the running requests at once, with an `EndedError`."""
        self._http.cancel()

    def weight_version(self) -> str:
        """Return the version of the server's weights."""
        return read_text(self._get("/weight_info"), "weight_version")

    def health_problem(self) -> str | None:
        """Return the reason why the server fails its health check, or None if it passes within five seconds."""
        try:
            self._http.request("GET", "/health", seconds=min(QUICK, self.timeout))
        except (ServerError, RefusedError) as error:
            return f"failed its health check: {error}"
        return None

    def settings(self) -> dict[str, Any]:
        """Return the settings with which vLLM was started."""
        return read_object(self._get("/server_info", config_format="json"), "vllm_config")

    def num_workers(self) -> int:
        """Return the number of worker processes that share the model."""
        return read_count(self._get("/get_world_size"), "world_size")

    def generate(self, tokens: Sequence[int], sampling: Sampling, *, seed: int, expected: Expected) -> Response:
        """Return one response.

        Raises:
            ServerError: if the request fails, or the response is not as expected.
            RefusedError: if the server rejects the request.
        """
        parameters = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": seed,
            "max_tokens": expected.max_length,
            "logprobs": 0,
            "detokenize": False,
            "stop_token_ids": sorted(expected.stops),
        }
        seconds = self.timeout + SECONDS_PER_TOKEN * expected.max_length
        answer = self._generate(tokens, parameters, seconds, len(tokens) + expected.max_length)
        return read_response(answer, expected, greedy=sampling.greedy)

    def logprobs(self, tokens: Sequence[int]) -> list[float]:
        """Return log-probabilities, in nats at temperature 1, of the second and later tokens of a sequence."""
        parameters = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        return read_logprobs(self._generate(tokens, parameters, self.timeout, len(tokens)), tokens)

    def teacher_card(self) -> tuple[TeacherCard, int]:
        """Return the card of a teacher server, and its context length."""
        answer = self._get(CARD_PATH)
        card = TeacherCard.of_json(answer)
        if card is None:
            raise ServerError("does not describe its model", URL_REMEDY)
        return card, read_count(answer, "context")

    def scores(self, tokens: Sequence[int], first: int, temperature: float, vocabulary: int) -> Tensor:
        """Return log-probability and entropy of the tokens from an index on, float32 [len(tokens) - first, 2].

        Args:
            tokens: token ids of prompt and response.
            first: index of the first token to score, at least 1.
            temperature: divisor of the logits.
            vocabulary: number of outputs of the teacher.

        Raises:
            ServerError: if the request fails, or the scores are not as expected.
            RefusedError: if the server rejects the request.
        """
        body = {"token_ids": list(tokens), "first": first, "temperature": temperature}
        seconds = self.timeout + SECONDS_PER_TOKEN * len(tokens)
        count = len(tokens) - first
        limit = 2**16 + 8 * count
        content = self._http.content("POST", SCORE_PATH, seconds=seconds, max_bytes=limit, json=body)
        return read_scores(content, count, vocabulary)

    def load_snapshot(self, folder: str) -> None:
        """Load a folder of safetensors files in all workers."""
        self.post("/collective_rpc", {"method": "load_snapshot", "kwargs": {"folder": folder}})

    def set_weight_version(self, version: str) -> None:
        """Reset the prefix cache, which holds states of older weights, and set the version that responses report."""
        if not _succeeded(self.post("/reset_prefix_cache")):
            raise ServerError("could not reset its prefix cache; it may be serving other clients")
        if not _succeeded(self.post("/update_weight_version", {"new_version": version})):
            raise ServerError("could not set the version of its weights")

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a POST request and return the JSON value of the answer.

        Raises:
            ServerError: if the server fails or times out.
            RefusedError: if the server rejects the request.
        """
        return self._http.request("POST", path, seconds=self.timeout, json=body or {})

    def _get(self, path: str, **query: str) -> Any:
        return self._http.request("GET", path, seconds=self.timeout, params=query)

    def _generate(self, tokens: Sequence[int], parameters: dict[str, Any], seconds: float, count: int) -> Any:
        body = {"token_ids": list(tokens), "sampling_params": parameters}
        size = 2**16 + BYTES_PER_TOKEN * count
        return self._http.request("POST", GENERATE, seconds=seconds, max_bytes=size, json=body)


def checked_url(url: str, name: str = "servers") -> str:
    """Return the address of a server; `name` is the setting that holds it.

    Raises:
        ValueError: if it is not of the form http://host:port.
    """
    try:
        parts = httpx.URL(url)
        known = parts.scheme in ("http", "https") and 0 < (parts.port or 80) < 2**16
        wrong = not known or not parts.host or "%" in parts.host or bool(parts.query or parts.fragment)
    except (httpx.InvalidURL, TypeError, ValueError):
        wrong = True
    if wrong:
        raise ValueError(f"{name} must be addresses such as http://127.0.0.1:8001, got {url!r}")
    if parts.userinfo:
        raise ValueError(f"{name} must not contain passwords, which would be stored with the run; use a token")
    return url


def _succeeded(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("success") is True
