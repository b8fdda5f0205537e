"""Rollout engine on vLLM servers, started with `fireopd serve` on this machine or others."""

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, fields
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from fireopd.distributed import collectives
from fireopd.engines.base import RolloutEngine
from fireopd.engines.hf.engine import HFEngine
from fireopd.engines.vllm.answers import Expected
from fireopd.engines.vllm.client import EndedError, RefusedError, ServerClient, ServerError, checked_url
from fireopd.engines.vllm.engine import check_temperature
from fireopd.engines.vllm.request_guard import server_token
from fireopd.engines.vllm.weight_transfer import SnapshotTransfer, WeightTransfer, call_all
from fireopd.errors import UserError
from fireopd.models.loading import load_config, load_tokenizer, stop_tokens
from fireopd.types import Prompt, Response

__all__ = ["VLLMServerEngine"]

EXCLUDING = Lock()
"""Lock of all `VLLMServerEngine.excluded`, to which several threads add servers."""
LOGGER = logging.getLogger("lightning.pytorch")


@dataclass
class VLLMServerEngine(RolloutEngine):
    """Distributes prompts over vLLM servers.

    A failing server is excluded until the next weight sync, and its pending prompts go to the other servers. If the
    environment variable FIREOPD_SERVER_TOKEN is set, requests contain this token.
    """

    servers: list[str] = field(default_factory=lambda: ["http://127.0.0.1:8001"])
    """Addresses of the servers. Start each with `fireopd serve MODEL --port PORT`."""
    concurrency: int = 64
    """Number of concurrent requests from each process to each server."""
    timeout: float = 600.0
    """Time limit of loading weights, and of waiting for the next response of a server, seconds; for responses, 0.1 s
    are added for each token of max_response_length."""
    transfer: WeightTransfer = field(default_factory=SnapshotTransfer)
    """Method of sending weights to the servers: SnapshotTransfer or NCCLTransfer."""
    clients: list[ServerClient] = field(default_factory=list, init=False, compare=False, repr=False)
    """Clients of all servers, after `setup`."""
    excluded: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Servers without the current weights or with a later failure: error message by address."""
    stops: frozenset[int] = field(default=frozenset(), init=False, compare=False, repr=False)
    """Token ids that end a response."""
    vocabulary: int = field(default=0, init=False, compare=False, repr=False)
    """Number of token ids of the model, after `setup`."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        if not self.servers:
            raise ValueError("servers must be at least one address, got []")
        if len({checked_url(url).rstrip("/") for url in self.servers}) < len(self.servers):
            raise ValueError(f"servers must be different addresses, got {self.servers}")
        check_temperature(self.temperature)
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {self.concurrency}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be greater than 0, got {self.timeout}")

    @property
    def available(self) -> list[ServerClient]:
        """Servers that have the current weights and have not failed since."""
        return [server for server in self.clients if server.url not in self.excluded]

    def check(self, key: str, student: str) -> None:
        """Check that each server responds and was started with suitable settings."""
        token = server_token()
        for url in self.servers:
            remedy = f"start it: fireopd serve {student} --port {url.rpartition(':')[2].strip('/') or 8001}"
            try:
                with closing(ServerClient(url, min(self.timeout, 60.0), token)) as server:
                    problem = self._settings_problem(server)
            except (ServerError, RefusedError) as error:
                problem, remedy = str(error), getattr(error, "remedy", None) or remedy
            except (KeyError, TypeError, AttributeError) as error:
                problem = f"does not report its vLLM settings ({error})"
            if problem:
                raise UserError(f"{key}.servers", url, problem, remedy)

    def _settings_problem(self, server: ServerClient) -> str | None:
        settings = server.settings()
        mode = settings["model_config"]["logprobs_mode"]
        if mode != "processed_logprobs" and self.sampling != type(self.sampling)():
            return f"its --logprobs-mode is {mode}, which does not match the sampling distribution of {self.sampling}"
        server.logprobs([0, 0])
        return self.transfer.check(settings)

    def setup(self, model: str, device: torch.device) -> None:
        """Load the stop tokens and create the clients; the servers have loaded the model."""
        token = server_token()
        self.stops = stop_tokens(model, "engine", load_tokenizer(model, "engine"))
        self.vocabulary = load_config(model, "engine").get_text_config().vocab_size
        self.clients = [ServerClient(url, self.timeout, token) for url in self.servers]

    def close(self) -> None:
        """Close the connections; the servers keep running."""
        super().close()
        for server in self.clients:
            server.close()
        self.clients = []

    def for_another_model(self) -> RolloutEngine:
        """Return an engine in this process, since the servers are reserved for the student."""
        return HFEngine(**{setting.name: vars(self)[setting.name] for setting in fields(RolloutEngine) if setting.init})

    def load_weights(self, weights: Any, policy_version: int) -> None:
        """Send the weights to all healthy servers, including those that were excluded."""
        version = str(policy_version)
        problems = self._health_problems() if collectives.rank() == 0 else {}
        problems = collectives.broadcast_object(problems)
        servers = [server for server in self.clients if server.url not in problems]
        failed = self.transfer.send(servers, weights, version) if servers else {}
        excluded = problems | {server.url: str(error) for server, error in failed.items()}
        previous, self.excluded = self.excluded, collectives.broadcast_object(excluded)
        self.policy_version = policy_version
        for url in sorted(self.excluded.keys() - previous.keys()):
            rank_zero_info(_exclusion(url, self.excluded[url]))
        for url in sorted(previous.keys() - self.excluded.keys()):
            rank_zero_info(f"{url} is included again")
        if not self.available:
            raise self._no_server_error()

    def _health_problems(self) -> dict[str, str]:
        with ThreadPoolExecutor(len(self.clients)) as pool:
            problems = pool.map(ServerClient.health_problem, self.clients)
            pairs = zip(self.clients, problems, strict=True)
            return {server.url: problem for server, problem in pairs if problem is not None}

    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return the log-probabilities of each server."""
        logprobs: dict[str, list[float]] = {}
        failed = call_all(self.available, lambda server: logprobs.update({server.url: server.logprobs(tokens)}))
        for server, error in failed.items():
            self._exclude(server, error)
        collectives.raise_on_all_ranks(None if self.available else self._no_server_error())
        return logprobs

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Sample one response per prompt; the pending prompts of a failed server go to the other servers."""
        responses: dict[int, Response] = {}
        while len(responses) < len(prompts):
            if not self.available:
                raise self._no_server_error()
            waiting: SimpleQueue[int] = SimpleQueue()
            missing = [row for row in range(len(prompts)) if row not in responses]
            for row in missing:
                waiting.put(row)
            available = self.available
            threads = min(self.concurrency, -(-len(missing) // len(available)))
            servers = [server for server in available for _ in range(threads)]
            with ThreadPoolExecutor(len(servers)) as pool:
                jobs = [pool.submit(self._generate_rows, server, waiting, prompts, seeds) for server in servers]
                try:
                    wait(jobs, return_when=FIRST_EXCEPTION)
                finally:
                    _drain(waiting)
                    while wait(jobs, timeout=0.05).not_done:  # after an error or an interrupt
                        for server in available:
                            server.cancel()
            for job in jobs:
                responses |= job.result()
        return [responses[row] for row in range(len(prompts))]

    def _generate_rows(
        self, server: ServerClient, waiting: "SimpleQueue[int]", prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> dict[int, Response]:
        """Request row after row from a server until the queue is empty or the server fails."""
        done: dict[int, Response] = {}
        while server.url not in self.excluded:
            try:
                row = waiting.get_nowait()
            except Empty:
                break
            response = self._generate_row(server, prompts[row], seeds[row])
            if response is not None:
                done[row] = response
        return done

    def _generate_row(self, server: ServerClient, prompt: Prompt, seed: int) -> Response | None:
        """Return a response, or None if the server failed. Ask all servers before a prompt counts as invalid."""
        expected = Expected(self.max_response_length, self.stops, self.vocabulary, str(self.policy_version))
        refusals: dict[ServerClient, RefusedError] = {}
        others = [other for other in self.available if other is not server]
        for asked in (server, *others):
            try:
                response = asked.generate(prompt.tokens, self.sampling, seed=seed, expected=expected)
            except RefusedError as error:
                refusals[asked] = error
            except EndedError:
                return None
            except ServerError as error:
                self._exclude(asked, error)
                if asked is server:
                    return None
            else:
                for refusing, refusal in refusals.items():
                    self._exclude(refusing, ServerError(f"rejects a prompt that {asked.url} accepts ({refusal})"))
                return response
        remedy = "shorten the prompt, or start the servers with the student's model and a longer context"
        problem = f"{server.url} rejects it ({refusals[server]})"
        raise UserError("data.prompts", prompt.id, problem, remedy) from refusals[server]

    def _exclude(self, server: ServerClient, error: Exception) -> None:
        with EXCLUDING:
            known = server.url in self.excluded
            self.excluded.setdefault(server.url, str(error))
        if not known:
            LOGGER.warning(_exclusion(server.url, str(error)))  # on every rank: each has its own connections

    def _no_server_error(self) -> UserError:
        problem = "no server is left (" + "; ".join(f"{url}: {error}" for url, error in self.excluded.items()) + ")"
        remedy = "restart them with fireopd serve, then resume from the last checkpoint"
        return UserError("data.engine.servers", ", ".join(self.servers), problem, remedy)


def _exclusion(url: str, problem: str) -> str:
    return f"Warning: {url} is excluded until the next weight sync: {problem}"


def _drain(waiting: "SimpleQueue[int]") -> None:
    """Empty the queue, so that running threads stop."""
    try:
        while True:
            waiting.get_nowait()
    except Empty:
        return
