"""Sampling by vLLM servers: other processes, on this machine or others, that the user starts with `fireopd serve`."""

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
from fireopd.engines.vllm.client import RefusedError, Server, ServerError
from fireopd.engines.vllm.engine import check_temperature
from fireopd.engines.vllm.weight_transfer import SnapshotTransfer, WeightTransfer, failures
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer, stop_tokens
from fireopd.types import Prompt, Response


@dataclass
class VLLMServerEngine(RolloutEngine):
    """Spreads prompts over vLLM servers. One that fails is left out until it takes new weights; its prompts go on."""

    servers: list[str] = field(default_factory=lambda: ["http://127.0.0.1:8001"])
    """Their addresses. Start each with `fireopd serve MODEL --port PORT`."""
    concurrency: int = 64
    """Responses that each process asks a server for at once."""
    timeout: float = 600.0
    """Seconds that one response, or the loading of weights, may take."""
    transfer: WeightTransfer = field(default_factory=SnapshotTransfer)
    """How weights get to the servers: SnapshotTransfer or NCCLTransfer."""
    fleet: list[Server] = field(default_factory=list, init=False, compare=False, repr=False)
    """All servers."""
    problems: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What went wrong with each server that has not got the current weights, or has failed since."""
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
    def ready(self) -> list[Server]:
        """The servers that have the current weights and have not failed since."""
        return [server for server in self.fleet if server.url not in self.problems]

    def check(self, key: str, student: str) -> None:
        """See whether each server is there, and was started as it has to be."""
        for url in self.servers:
            remedy = f"start it: fireopd serve {student} --port {url.rpartition(':')[2].strip('/') or 8001}"
            try:
                problem = self._problem(Server(url, timeout=min(self.timeout, 60.0)))
            except (ServerError, RefusedError) as error:
                problem = str(error)
            except (KeyError, TypeError) as error:
                problem = f"does not say how vLLM was started ({error})"
            if problem:
                raise UserError(f"{key}.servers", url, problem, remedy)

    def _problem(self, server: Server) -> str | None:
        settings = server.settings()
        mode = settings["model_config"]["logprobs_mode"]
        if mode != "processed_logprobs" and self.sampling != type(self.sampling)():
            return f"its --logprobs-mode is {mode}, which does not describe what is drawn from at {self.sampling}"
        server.logprobs([0, 0])
        return self.transfer.check(settings)

    def setup(self, model: str, device: torch.device) -> None:
        """Take note of the stop tokens; the servers hold the model already."""
        self.stops = stop_tokens(model, "engine", load_tokenizer(model, "engine"))
        self.fleet = [Server(url, self.timeout) for url in self.servers]

    def close(self) -> None:
        """Close the connections; the servers stay."""
        super().close()
        for server in self.fleet:
            server.close()

    def for_another_model(self) -> RolloutEngine:
        """Return an engine in this process: the servers hold the student."""
        return HFEngine(**{setting.name: vars(self)[setting.name] for setting in fields(RolloutEngine) if setting.init})

    def load_weights(self, weights: Any, policy_version: int) -> None:
        """Send the weights to all servers that answer, those that had failed too."""
        version = str(policy_version)
        listening = {server.url for server in self.fleet if server.healthy()} if collectives.rank() == 0 else set()
        listening = collectives.broadcast_object(listening)
        servers = [server for server in self.fleet if server.url in listening]
        failed = self.transfer.send(servers, weights, version) if servers else {}
        problems = {server.url: str(error) for server, error in failed.items()}
        problems |= {server.url: "does not answer" for server in self.fleet if server.url not in listening}
        known, self.problems = self.problems, collectives.broadcast_object(problems)
        self.policy_version = policy_version
        for url in sorted(self.problems.keys() - known.keys()):
            rank_zero_info(f"{url} is left out until it takes new weights, the others go on: {self.problems[url]}")
        for url in sorted(known.keys() - self.problems.keys()):
            rank_zero_info(f"{url} takes part again")
        if not self.ready:
            raise self._none_left()

    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return what each server says."""
        answers: dict[str, list[float]] = {}
        failed = failures(self.ready, lambda server: answers.update({server.url: server.logprobs(tokens)}))
        for server, error in failed.items():
            self._leave_out(server, error)
        collectives.raise_on_all_ranks(None if self.ready else self._none_left())
        return answers

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Ask for one response to each prompt; what a failed server owes is asked of the others."""
        responses: dict[int, Response] = {}
        while len(responses) < len(prompts):
            if not self.ready:
                raise self._none_left()
            waiting: SimpleQueue[int] = SimpleQueue()
            missing = [row for row in range(len(prompts)) if row not in responses]
            for row in missing:
                waiting.put(row)
            ready = self.ready
            threads = min(self.concurrency, -(-len(missing) // len(ready)))
            servers = [server for server in ready for _ in range(threads)]
            with ThreadPoolExecutor(len(servers)) as pool:
                try:
                    jobs = [pool.submit(self._work, server, waiting, prompts, seeds) for server in servers]
                    for job in jobs:
                        responses |= job.result()
                finally:
                    _drain(waiting)
        return [responses[row] for row in range(len(prompts))]

    def _work(
        self, server: Server, waiting: "SimpleQueue[int]", prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> dict[int, Response]:
        """Have a server answer row after row, until there are no more or it fails."""
        done: dict[int, Response] = {}
        while server.url not in self.problems:
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
                self._leave_out(server, error)
            except RefusedError as error:
                remedy = "shorten the prompt, or start the servers with the student's model and a longer context"
                raise UserError(
                    "data.prompts", prompts[row].id, f"{server.url} refuses it ({error})", remedy
                ) from error
        return done

    def _leave_out(self, server: Server, error: Exception) -> None:
        if server.url not in self.problems:
            self.problems[server.url] = str(error)
            rank_zero_info(f"{server.url} is left out until it takes new weights, the others go on: {error}")

    def _none_left(self) -> UserError:
        problem = "no server is left (" + "; ".join(f"{url}: {why}" for url, why in self.problems.items()) + ")"
        remedy = "start them again with fireopd serve, then go on from the last checkpoint"
        return UserError("data.engine.servers", ", ".join(self.servers), problem, remedy)


def _drain(waiting: "SimpleQueue[int]") -> None:
    """Leave nothing to do for threads that are still at work."""
    try:
        while True:
            waiting.get_nowait()
    except Empty:
        return
