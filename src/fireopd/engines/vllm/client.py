"""One vLLM server, started with `fireopd serve`, as the trainer sees it."""

import math
from collections.abc import Sequence
from typing import Any

import httpx

from fireopd.types import Response, Sampling

WORKER_EXTENSION = "fireopd.engines.vllm.worker.SnapshotLoader"
"""What a server's workers are extended by, so that they can load a snapshot."""


class ServerError(Exception):
    """A server died, timed out or answered garbage. Another one may do better."""


class RefusedError(Exception):
    """A server says that what it was asked is wrong. Any other one would say the same."""


class Server:
    """Sends requests to one server, from any number of threads."""

    def __init__(self, url: str, timeout: float) -> None:
        """Store the address; nothing is sent.

        Args:
            url: for example http://127.0.0.1:8001.
            timeout: seconds that an answer may take.
        """
        self.url = url.rstrip("/")
        patience = httpx.Timeout(timeout, connect=min(5.0, timeout))
        limits = httpx.Limits(max_connections=None)
        # Servers stand on this machine or a private network: a proxy is never in between.
        self.client = httpx.Client(base_url=self.url, timeout=patience, limits=limits, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def version(self) -> str:
        """Return the name of the weights that the server has."""
        return str(self._ask("GET", "/weight_info")["weight_version"])

    def healthy(self) -> bool:
        """Return whether the server answers, and soon."""
        try:
            return self.client.get("/health", timeout=5.0).is_success
        except httpx.HTTPError:
            return False

    def settings(self) -> dict[str, Any]:
        """Return the settings that vLLM was started with."""
        return dict(self._ask("GET", "/server_info", params={"config_format": "json"})["vllm_config"])

    def workers(self) -> int:
        """Return the number of processes that hold a part of the model."""
        return int(self._ask("GET", "/get_world_size")["world_size"])

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
            ServerError: if there is none, it makes no sense, or it came from other weights than those of the version.
            RefusedError: if the server refuses the request.
        """
        wanted = {
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
        answer = self._ask(
            "POST", "/inference/v1/generate", json={"token_ids": list(tokens), "sampling_params": wanted}
        )
        try:
            [choice] = answer["choices"]
            versions = {span["version"] for span in choice["weight_versions"]}
            logprobs = tuple(float(entry["logprob"]) for entry in choice["logprobs"]["content"])
            response = Response(tuple(choice["token_ids"]), logprobs, finished=choice["finish_reason"] == "stop")
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"answered something else than a response ({type(error).__name__}: {error})") from error
        if versions != {version}:
            raise ServerError(f"answered from weights {', '.join(sorted(versions))} instead of {version}")
        problem = flaw(response, max_length, stops)
        if problem:
            raise ServerError(f"answered a response {problem}")
        return response

    def logprobs(self, tokens: Sequence[int]) -> list[float]:
        """Return log-probabilities, nats at temperature 1, of a sequence's tokens from the second on."""
        wanted = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        answer = self._ask(
            "POST", "/inference/v1/generate", json={"token_ids": list(tokens), "sampling_params": wanted}
        )
        try:
            told = zip(tokens[1:], answer["prompt_logprobs"][1:], strict=True)
            return [float(logprobs[str(token)]["logprob"]) for token, logprobs in told]
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"answered something else than log-probabilities ({error})") from error

    def load_snapshot(self, folder: str) -> None:
        """Have the workers load a folder of safetensors files."""
        self.post("/collective_rpc", {"method": "load_snapshot", "kwargs": {"folder": folder}})

    def take_version(self, version: str) -> None:
        """Forget what was cached under older weights, and name the new ones; every response will state the name."""
        if not self.post("/reset_prefix_cache")["success"]:
            raise ServerError("could not reset its prefix cache: is it at work for somebody else?")
        self.post("/update_weight_version", {"new_version": version})

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request that changes the server."""
        return self._ask("POST", path, json=body)

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self.client.request(method, path, **request)
            body = answer.json() if answer.content else {}
        except httpx.TimeoutException as error:
            raise ServerError(f"did not answer in time ({type(error).__name__})") from error
        except (httpx.HTTPError, ValueError) as error:
            raise ServerError(f"{type(error).__name__}: {error}") from error
        if answer.is_client_error:
            raise RefusedError(f"{answer.status_code} for {path}: {_message(body)}")
        if not answer.is_success or not isinstance(body, dict):
            raise ServerError(f"{answer.status_code} for {path}: {_message(body)}")
        return body


def flaw(response: Response, max_length: int, stops: frozenset[int]) -> str | None:
    """Return what is wrong with a response that was sent, if something is."""
    if not 1 <= len(response.tokens) <= max_length:
        return f"of {len(response.tokens)} tokens, where 1 to {max_length} were asked for"
    if len(response.logprobs) != len(response.tokens):
        return f"with {len(response.logprobs)} log-probabilities for {len(response.tokens)} tokens"
    if not all(isinstance(token, int) and token >= 0 for token in response.tokens):
        return "whose tokens are no ids"
    if not all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in response.logprobs):
        return "whose log-probabilities are none"
    if response.finished != (response.tokens[-1] in stops):
        return f"said to be {'finished' if response.finished else 'cut'} with {response.tokens[-1]} as its last token"
    if not response.finished and len(response.tokens) < max_length:
        return f"cut after {len(response.tokens)} tokens of {max_length}: is its --max-model-len too small?"
    return None


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error["message"] if isinstance(error, dict) and "message" in error else error)[:500]
