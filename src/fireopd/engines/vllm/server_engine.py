"""Rollout engine on vLLM servers, started with `fireopd serve` on this machine or others."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from queue import Empty, SimpleQueue
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from fireopd.distributed import collectives
from fireopd.engines.base import RolloutEngine
from fireopd.engines.hf.engine import HFEngine
from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError
from fireopd.engines.vllm.engine import check_temperature
from fireopd.engines.vllm.weight_transfer import SnapshotTransfer, WeightTransfer, call_all
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer, stop_tokens
from fireopd.types import Prompt, Response

__all__ = ["VLLMServerEngine"]


@dataclass
class VLLMServerEngine(RolloutEngine):
    """Distributes prompts over vLLM servers.

    A failing server is excluded until the next weight sync, and its pending prompts go to the other servers.
    """

    servers: list[str] = field(default_factory=lambda: ["http://127.0.0.1:8001"])
    """Addresses of the servers. Start each with `fireopd serve MODEL --port PORT`."""
    concurrency: int = 64
    """Number of concurrent requests from each process to each server."""
    timeout: float = 600.0
    """Timeout of a response and of loading weights, seconds."""
    transfer: WeightTransfer = field(default_factory=SnapshotTransfer)
    """Method of sending weights to the servers: SnapshotTransfer or NCCLTransfer."""
    clients: list[ServerClient] = field(default_factory=list, init=False, compare=False, repr=False)
    """Clients of all servers, after `setup`."""
    excluded: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Servers without the current weights or with a later failure: error message by address."""
    stops: frozenset[int] = field(default=frozenset(), init=False, compare=False, repr=False)
    """Token ids that end a response."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        if not self.servers:
            raise ValueError("servers must be at least one address, got []")
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
        for url in self.servers:
            remedy = f"start it: fireopd serve {student} --port {url.rpartition(':')[2].strip('/') or 8001}"
            try:
                problem = self._settings_problem(ServerClient(url, timeout=min(self.timeout, 60.0)))
            except (ServerError, RefusedError) as error:
                problem = str(error)
            except (KeyError, TypeError) as error:
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
        self.stops = stop_tokens(model, "engine", load_tokenizer(model, "engine"))
        self.clients = [ServerClient(url, self.timeout) for url in self.servers]

    def close(self) -> None:
        """Close the connections; the servers keep running."""
        super().close()
        for server in self.clients:
            server.close()

    def for_another_model(self) -> RolloutEngine:
        """Return an engine in this process, since the servers are reserved for the student."""
        return HFEngine(**{setting.name: vars(self)[setting.name] for setting in fields(RolloutEngine) if setting.init})

    def load_weights(self, weights: Any, policy_version: int) -> None:
        """Send the weights to all healthy servers, including those that were excluded."""
        version = str(policy_version)
        healthy = {server.url for server in self.clients if server.is_healthy()} if collectives.rank() == 0 else set()
        healthy = collectives.broadcast_object(healthy)
        servers = [server for server in self.clients if server.url in healthy]
        failed = self.transfer.send(servers, weights, version) if servers else {}
        excluded = {server.url: str(error) for server, error in failed.items()}
        excluded |= {server.url: "failed its health check" for server in self.clients if server.url not in healthy}
        previous, self.excluded = self.excluded, collectives.broadcast_object(excluded)
        self.policy_version = policy_version
        for url in sorted(self.excluded.keys() - previous.keys()):
            rank_zero_info(f"{url} is excluded until the next weight sync: {self.excluded[url]}")
        for url in sorted(previous.keys() - self.excluded.keys()):
            rank_zero_info(f"{url} is included again")
        if not self.available:
            raise self._no_server_error()

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
                try:
                    jobs = [pool.submit(self._generate_rows, server, waiting, prompts, seeds) for server in servers]
                    for job in jobs:
                        responses |= job.result()
                finally:
                    _drain(waiting)
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
            try:
                done[row] = server.generate(
                    prompts[row].tokens,
                    self.sampling,
                    seed=seeds[row],
                    max_length=self.max_response_length,
                    stops=self.stops,
                    version=str(self.policy_version),
                )
            except ServerError as error:
                self._exclude(server, error)
            except RefusedError as error:
                remedy = "shorten the prompt, or start the servers with the student's model and a longer context"
                raise UserError(
                    "data.prompts", prompts[row].id, f"{server.url} rejects it ({error})", remedy
                ) from error
        return done

    def _exclude(self, server: ServerClient, error: Exception) -> None:
        if server.url not in self.excluded:
            self.excluded[server.url] = str(error)
            rank_zero_info(f"{server.url} is excluded until the next weight sync: {error}")

    def _no_server_error(self) -> UserError:
        problem = "no server is left (" + "; ".join(f"{url}: {error}" for url, error in self.excluded.items()) + ")"
        remedy = "restart them with fireopd serve, then resume from the last checkpoint"
        return UserError("data.engine.servers", ", ".join(self.servers), problem, remedy)


def _drain(waiting: "SimpleQueue[int]") -> None:
    """Empty the queue, so that running threads stop."""
    try:
        while True:
            waiting.get_nowait()
    except Empty:
        return
