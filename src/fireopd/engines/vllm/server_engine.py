"""Rollout engine on vLLM servers, started with `fireopd serve` on this machine or others."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info

from fireopd.distributed import collectives
from fireopd.engines.base import RolloutEngine, RowRequest
from fireopd.engines.hf.engine import HFEngine
from fireopd.engines.vllm.answers import Expected
from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError
from fireopd.engines.vllm.engine import check_temperature
from fireopd.engines.vllm.request_guard import server_token
from fireopd.engines.vllm.server_pool import ServerPool, check_addresses, exclusion
from fireopd.engines.vllm.weight_transfer import SnapshotTransfer, WeightTransfer, call_all
from fireopd.errors import UserError
from fireopd.models.loading import load_config, load_tokenizer, stop_tokens
from fireopd.types import Prompt, Response

__all__ = ["VLLMServerEngine"]

UNTIL = "the next weight sync"
"""End of the exclusion of a server."""


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
    pool: ServerPool = field(
        default_factory=lambda: ServerPool([], 1, "data.engine.servers", UNTIL), init=False, compare=False, repr=False
    )
    """All servers, after `setup`. Those without the current weights or with a later failure are excluded."""
    stops: frozenset[int] = field(default=frozenset(), init=False, compare=False, repr=False)
    """Token ids that end a response."""
    vocabulary: int = field(default=0, init=False, compare=False, repr=False)
    """Number of token ids of the model, after `setup`."""

    addresses: ClassVar[str] = "servers"
    """Name of the setting that holds the addresses."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        check_addresses(self.servers, self.concurrency, self.timeout)
        check_temperature(self.temperature)

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
                raise UserError(f"{key}.{self.addresses}", url, problem, remedy)

    @property
    def version(self) -> str:
        """Version of the weights that the servers must report."""
        return str(self.policy_version)

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
        clients = [ServerClient(url, self.timeout, token) for url in self.servers]
        self.pool = ServerPool(clients, self.concurrency, "data.engine.servers", UNTIL)

    def close(self) -> None:
        """Close the connections; the servers keep running."""
        super().close()
        self.pool.close()
        self.pool = ServerPool([], 1, "data.engine.servers", UNTIL)

    def for_another_model(self) -> RolloutEngine:
        """Return an engine in this process, since the servers are reserved for the student."""
        return HFEngine(**{setting.name: vars(self)[setting.name] for setting in fields(RolloutEngine) if setting.init})

    def load_weights(self, weights: Any, policy_version: int) -> None:
        """Send the weights to all healthy servers, including those that were excluded."""
        version = str(policy_version)
        problems = self._health_problems() if collectives.rank() == 0 else {}
        problems = collectives.broadcast_object(problems)
        servers = [server for server in self.pool.clients if server.url not in problems]
        failed = self.transfer.send(servers, weights, version) if servers else {}
        excluded = problems | {server.url: str(error) for server, error in failed.items()}
        previous, self.pool.excluded = self.pool.excluded, collectives.broadcast_object(excluded)
        self.policy_version = policy_version
        for url in sorted(self.pool.excluded.keys() - previous.keys()):
            rank_zero_info(exclusion(url, self.pool.excluded[url], UNTIL))
        for url in sorted(previous.keys() - self.pool.excluded.keys()):
            rank_zero_info(f"{url} is included again")
        if not self.pool.available:
            raise self.pool.no_server_error()

    def _health_problems(self) -> dict[str, str]:
        with ThreadPoolExecutor(len(self.pool.clients)) as threads:
            problems = threads.map(ServerClient.health_problem, self.pool.clients)
            pairs = zip(self.pool.clients, problems, strict=True)
            return {server.url: problem for server, problem in pairs if problem is not None}

    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return the log-probabilities of each server."""
        logprobs: dict[str, list[float]] = {}
        failed = call_all(self.pool.available, lambda server: logprobs.update({server.url: server.logprobs(tokens)}))
        for server, error in failed.items():
            self.pool.exclude(server, error)
        collectives.raise_on_all_ranks(None if self.pool.available else self.pool.no_server_error())
        return logprobs

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Sample one response per prompt; the pending prompts of a failed server go to the other servers."""
        return self.generate_mixed(self.requests(prompts, seeds))

    def generate_mixed(self, rows: Sequence[RowRequest]) -> list[Response]:
        """Sample one response per row, all of them at the same time."""
        if not self.pool.available:
            raise self.pool.no_server_error()
        pending = [
            self.pool.submit(partial(self._generate, place, row, self.version), partial(_rejected, row.prompt))
            for place, row in enumerate(rows)
        ]
        return self.pool.gather(pending)

    def _generate(self, place: int, row: RowRequest, version: str, server: ServerClient) -> Response:
        expected = Expected(row.max_length, self.stops, self.vocabulary, version)
        sampling = replace(self.sampling, temperature=row.temperature)
        response = server.generate(row.prompt.tokens, sampling, seed=row.seed, expected=expected)
        self.announce(place, response)
        return response


def _rejected(prompt: Prompt, server: ServerClient, error: RefusedError) -> UserError:
    remedy = "shorten the prompt, or start the servers with the student's model and a longer context"
    return UserError("data.prompts", prompt.id, f"{server.url} rejects it ({error})", remedy)
