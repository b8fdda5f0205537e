"""Requests for scores that teacher servers answer, begun before the scores are needed."""

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError
from fireopd.engines.vllm.server_pool import ServerPool
from fireopd.errors import UserError

__all__ = ["ScoreRequest", "ScoreRequests"]

MAX_REPLICA_GAP = 0.1
"""Maximum mean difference, in nats, between the log-probabilities of two servers with the same model; rounding of
half precision stays below it."""
PROBE = 32
"""Tokens of the probe that all servers score."""


class ScoreRequest(NamedTuple):
    """Sequence whose scores are requested."""

    tokens: tuple[int, ...]
    """Token ids of prompt and response."""
    first: int
    """Index of the first token to score."""
    temperature: float
    """Divisor of the logits."""


class ScoreRequests:
    """Pending requests to the servers of one teacher. Thread-safe: rollouts may run in another thread.

    A server that fails is excluded for 1, 2, 4, ... batches.
    """

    def __init__(self, pool: ServerPool, vocabulary: int) -> None:
        """Store the servers without sending a request.

        Args:
            pool: servers of the teacher.
            vocabulary: number of outputs of its model.
        """
        self.pool, self.vocabulary = pool, vocabulary
        self.begun: dict[ScoreRequest, Future[Tensor]] = {}  # whose scores were not read yet
        self._lock = Lock()
        self._failures: dict[str, int] = {}  # number of exclusions of each server
        self._pauses: dict[str, int] = {}  # batches until an excluded server is tried again

    def compare_replicas(self) -> None:
        """Compare the scores of a probe by all servers.

        Raises:
            UserError: if two servers differ, or no server answers.
        """
        probe = [place % self.vocabulary for place in range(PROBE)]
        scores = {}
        for server in self.pool.clients:
            try:
                scores[server.url] = server.scores(probe, 1, 1.0, self.vocabulary)
            except (ServerError, RefusedError) as error:
                self.pool.exclude(server, error)
        if not scores:
            raise self.pool.no_server_error()
        (first, reference), *others = scores.items()
        for url, found in others:
            gap = (found - reference)[:, 0].abs().mean().item()
            if gap > MAX_REPLICA_GAP:
                problem = f"its log-probabilities differ from those of {first} by {gap:.3g} nats in the mean"
                raise UserError(self.pool.key, url, problem, "start all servers with the same weights and dtype")

    def begin(self, request: ScoreRequest) -> "Future[Tensor]":
        """Return the pending scores of a sequence; request them unless they were requested before."""
        with self._lock:
            known = self.begun.get(request)
            if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
                rejected = partial(_rejected, self.pool.key)
                known = self.begun[request] = self.pool.submit(partial(_ask, request, self.vocabulary), rejected)
            return known

    def scores(self, requests: Sequence[ScoreRequest]) -> list[Tensor]:
        """Return log-probability and entropy of the tokens of each sequence, float32 [tokens, 2].

        Raises:
            UserError: if no server is left, or all servers reject a sequence.
        """
        self._try_excluded()
        found = self.pool.gather([self.begin(request) for request in requests])
        with self._lock:
            for request in requests:
                self.begun.pop(request, None)
        return found

    def close(self) -> None:
        """Cancel the requests and close the connections; the servers keep running."""
        self.pool.close()

    def _try_excluded(self) -> None:
        """Include servers again whose pause is over and which pass their health check; each exclusion doubles it."""
        for server in self.pool.clients:
            if server.url not in self.pool.excluded:
                continue
            if server.url not in self._pauses:
                self._failures[server.url] = self._failures.get(server.url, 0) + 1
                self._pauses[server.url] = 2 ** (self._failures[server.url] - 1)
            self._pauses[server.url] -= 1
            if self._pauses[server.url] <= 0 and server.health_problem() is None:
                del self._pauses[server.url]
                self.pool.include(server)
                rank_zero_info(f"{server.url} is included again")


def _ask(request: ScoreRequest, vocabulary: int, server: ServerClient) -> Tensor:
    return server.scores(request.tokens, request.first, request.temperature, vocabulary)


def _rejected(key: str, server: ServerClient, error: RefusedError) -> UserError:
    remedy = "start the servers with the teacher's model and a longer context (--max-model-len)"
    return UserError(key, server.url, f"rejects a trajectory ({error})", remedy)
