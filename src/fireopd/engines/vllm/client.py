"""HTTP client of one vLLM server that was started with `fireopd serve`."""

import math
from collections.abc import Sequence
from typing import Any

import httpx

from fireopd.types import Response, Sampling

__all__ = ["RefusedError", "ServerClient", "ServerError", "response_problem"]


class ServerError(Exception):
    """Failure of a server: it died, timed out or returned an invalid response. Another server may succeed."""


class RefusedError(Exception):
    """Rejection of a request as invalid. Any other server would reject it as well."""


class ServerClient:
    """Client of one server. Thread-safe."""

    def __init__(self, url: str, timeout: float) -> None:
        """Store the address without sending a request.

        Args:
            url: address, for example http://127.0.0.1:8001.
            timeout: timeout of a response in seconds.
        """
        self.url = url.rstrip("/")
        timeouts = httpx.Timeout(timeout, connect=min(5.0, timeout))
        limits = httpx.Limits(max_connections=None)
        # Servers run on this machine or in a private network: ignore the proxy settings of the environment.
        self.client = httpx.Client(base_url=self.url, timeout=timeouts, limits=limits, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def weight_version(self) -> str:
        """Return the version of the server's weights."""
        return str(self._request("GET", "/weight_info")["weight_version"])

    def is_healthy(self) -> bool:
        """Return whether the server passes its health check within five seconds."""
        try:
            return self.client.get("/health", timeout=5.0).is_success
        except httpx.HTTPError:
            return False

    def settings(self) -> dict[str, Any]:
        """Return the settings with which vLLM was started."""
        return dict(self._request("GET", "/server_info", params={"config_format": "json"})["vllm_config"])

    def num_workers(self) -> int:
        """Return the number of worker processes that share the model."""
        return int(self._request("GET", "/get_world_size")["world_size"])

    def generate(
        self,
        tokens: Sequence[int],
        sampling: Sampling,
        *,
        seed: int,
        max_length: int,
        stops: frozenset[int],
        version: str,
    ) -> Response:
        """Return one response.

        Raises:
            ServerError: if the request fails, or the response is invalid or from weights of another version.
            RefusedError: if the server rejects the request.
        """
        parameters = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": seed,
            "max_tokens": max_length,
            "logprobs": 0,
            "detokenize": False,
            "stop_token_ids": sorted(stops),
        }
        body = {"token_ids": list(tokens), "sampling_params": parameters}
        answer = self.post("/inference/v1/generate", body)
        try:
            [choice] = answer["choices"]
            versions = {span["version"] for span in choice["weight_versions"]}
            logprobs = tuple(float(entry["logprob"]) for entry in choice["logprobs"]["content"])
            response = Response(tuple(choice["token_ids"]), logprobs, finished=choice["finish_reason"] == "stop")
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"did not return a response ({type(error).__name__}: {error})") from error
        if versions != {version}:
            raise ServerError(f"sampled from weights {', '.join(sorted(versions))} instead of {version}")
        problem = response_problem(response, max_length, stops)
        if problem:
            raise ServerError(f"returned an invalid response: {problem}")
        return response

    def logprobs(self, tokens: Sequence[int]) -> list[float]:
        """Return log-probabilities, in nats at temperature 1, of the second and later tokens of a sequence."""
        parameters = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        body = {"token_ids": list(tokens), "sampling_params": parameters}
        answer = self.post("/inference/v1/generate", body)
        try:
            pairs = zip(tokens[1:], answer["prompt_logprobs"][1:], strict=True)
            return [float(logprobs[str(token)]["logprob"]) for token, logprobs in pairs]
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"did not return log-probabilities ({error})") from error

    def load_snapshot(self, folder: str) -> None:
        """Load a folder of safetensors files in all workers."""
        self.post("/collective_rpc", {"method": "load_snapshot", "kwargs": {"folder": folder}})

    def set_weight_version(self, version: str) -> None:
        """Reset the prefix cache, which holds states of older weights, and set the version that responses report."""
        if not self.post("/reset_prefix_cache")["success"]:
            raise ServerError("could not reset its prefix cache; it may be serving other clients")
        self.post("/update_weight_version", {"new_version": version})

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a POST request and return the JSON object of the response.

        Raises:
            ServerError: if the server fails or times out.
            RefusedError: if the server rejects the request.
        """
        return self._request("POST", path, json=body)

    def _request(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self.client.request(method, path, **request)
            body = answer.json() if answer.content else {}
        except httpx.TimeoutException as error:
            raise ServerError(f"timed out ({type(error).__name__})") from error
        except (httpx.HTTPError, ValueError) as error:
            raise ServerError(f"{type(error).__name__}: {error}") from error
        if answer.is_client_error:
            raise RefusedError(f"{answer.status_code} for {path}: {_message(body)}")
        if not answer.is_success or not isinstance(body, dict):
            raise ServerError(f"{answer.status_code} for {path}: {_message(body)}")
        return body


def response_problem(response: Response, max_length: int, stops: frozenset[int]) -> str | None:
    """Return the reason why a response is invalid, or None if it is valid."""
    if not 1 <= len(response.tokens) <= max_length:
        return f"{len(response.tokens)} tokens instead of 1 to {max_length}"
    if len(response.logprobs) != len(response.tokens):
        return f"{len(response.logprobs)} log-probabilities for {len(response.tokens)} tokens"
    if not all(isinstance(token, int) and token >= 0 for token in response.tokens):
        return "tokens that are not token ids"
    if not all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in response.logprobs):
        return "log-probabilities that are positive or not finite"
    if response.finished != (response.tokens[-1] in stops):
        return f"marked as {'finished' if response.finished else 'cut'}, but its last token is {response.tokens[-1]}"
    if not response.finished and len(response.tokens) < max_length:
        return f"cut after {len(response.tokens)} of {max_length} tokens; its --max-model-len may be too small"
    return None


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error["message"] if isinstance(error, dict) and "message" in error else error)[:500]
