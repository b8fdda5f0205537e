"""Teacher on vLLM servers, started with `fireopd serve MODEL --teacher` on this machine or others."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.engines import MemoryPart
from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError
from fireopd.engines.vllm.request_guard import server_token
from fireopd.engines.vllm.server_pool import ServerPool, check_addresses
from fireopd.engines.vllm.teacher_card import TeacherCard
from fireopd.errors import UserError
from fireopd.models.loading import context_length, load_tokenizer, vocabulary_size
from fireopd.models.scorer import CausalScorer
from fireopd.teachers.base import Teacher, leave_unsharded
from fireopd.teachers.context import TeacherContext, align_to, replace_prompts
from fireopd.teachers.vocabulary import MISSING_TOKEN_LOGPROB, checked_tokenizer
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["VLLMTeacher"]

MAX_REPLICA_GAP = 0.1
"""Maximum mean difference, in nats, between the log-probabilities of two servers with the same model; rounding of
half precision stays below it."""
PROBE = 32
"""Tokens of the probe that all servers score."""
QUICK = 60.0
"""Time limit of the checks before a run, seconds."""


class Request(NamedTuple):
    """Sequence whose scores are requested."""

    tokens: tuple[int, ...]
    """Token ids of prompt and response."""
    first: int
    """Index of the first token to score."""
    temperature: float
    """Divisor of the logits."""


@dataclass
class VLLMTeacher(Teacher):
    """Model on vLLM servers, which returns exact log-probabilities and entropies. It takes no memory of the trainer.

    Requests are sent while the rollout still runs, if the engine completes rows one by one. A failing server is
    excluded for a growing number of batches, and its requests go to the other servers. Scores of responses need no
    distributions: strategies that compare distributions are refused.
    """

    path: str
    """Model of the servers: a model folder, a hub name, or an embedded model. The trainer reads its tokenizer and its
    configuration, not its weights."""
    servers: list[str] = field(default_factory=lambda: ["http://127.0.0.1:8101"])
    """Addresses of the servers. Start each with `fireopd serve MODEL --teacher --port PORT`."""
    concurrency: int = 32
    """Number of concurrent requests from each process to each server."""
    timeout: float = 600.0
    """Time limit of waiting for the next scores of a server, seconds; 0.1 s are added for each token."""
    context: list[dict[str, str]] = field(default_factory=list)
    """Chat messages that only the teacher sees; see `HFTeacher.context`."""
    filled: TeacherContext = field(init=False, compare=False, repr=False)
    """The context, which is filled in for each prompt."""
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, init=False, compare=False, repr=False)
    """The teacher's tokenizer, loaded on first use if there is a context."""
    pool: ServerPool | None = field(default=None, init=False, compare=False, repr=False)
    """The servers, after `setup`."""
    vocabulary: int = field(default=0, init=False, compare=False, repr=False)
    """Number of outputs of the model, after `setup`."""
    begun: dict[Request, "Future[Tensor]"] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Requests whose scores were not read yet."""
    lock: Lock = field(default_factory=Lock, init=False, compare=False, repr=False)
    """Lock of `begun`: rollouts may run in another thread."""
    failures: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Number of exclusions of each server."""
    pauses: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Number of batches until an excluded server is tried again."""

    def __post_init__(self) -> None:
        """Check the range of the settings and the messages of the context."""
        check_addresses(self.servers, self.concurrency, self.timeout)
        self.filled = TeacherContext(self.context)

    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Compare tokens with the student's and the servers' model with `path`; check the lengths."""
        tokenizer = checked_tokenizer(self.path, key, student)
        limits = [context_length(self.path, f"{key}.path"), *self._check_servers(key)]
        limit = min(limit for limit in limits if limit is not None)
        self.filled.check(key, prompts, tokenizer, limit=limit, response_length=response_length)

    def _check_servers(self, key: str) -> list[int]:
        """Return the context lengths of the servers.

        Raises:
            UserError: if a server does not answer, or serves another model.
        """
        expected, token, contexts = TeacherCard.of_model(self.path, f"{key}.path"), server_token(), []
        for url in self.servers:
            port = url.rpartition(":")[2].strip("/") or 8101
            remedy = f"start it: fireopd serve {self.path} --teacher --port {port}"
            try:
                with closing(ServerClient(url, min(self.timeout, QUICK), token)) as server:
                    card, context = server.teacher_card()
                    problem = card.problem(expected)
            except (ServerError, RefusedError) as error:
                problem, remedy = str(error), getattr(error, "remedy", None) or remedy
            if problem:
                raise UserError(f"{key}.servers", url, problem, remedy)
            contexts.append(context)
        return contexts

    def memory(self, shards: int) -> dict[str, MemoryPart]:
        """Return no parts: the weights are on the servers."""
        return {}

    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None] = leave_unsharded) -> None:
        """Connect to the servers, and compare their scores of a probe."""
        if self.pool is not None:
            return
        self.vocabulary = vocabulary_size(self.path, f"{key}.path")
        token = server_token()
        clients = [ServerClient(url, self.timeout, token) for url in self.servers]
        self.pool = ServerPool(clients, self.concurrency, f"{key}.servers", "a later batch")
        self._compare_replicas(self.pool)

    def _compare_replicas(self, pool: ServerPool) -> None:
        probe = [place % self.vocabulary for place in range(PROBE)]
        scores = {}
        for server in pool.clients:
            try:
                scores[server.url] = server.scores(probe, 1, 1.0, self.vocabulary)
            except (ServerError, RefusedError) as error:
                pool.exclude(server, error)
        if not scores:
            raise pool.no_server_error()
        (first, reference), *others = scores.items()
        for url, found in others:
            gap = (found - reference)[:, 0].abs().mean().item()
            if gap > MAX_REPLICA_GAP:
                problem = f"its log-probabilities differ from those of {first} by {gap:.3g} nats in the mean"
                raise UserError(pool.key, url, problem, "start all servers with the same weights and dtype")

    def close(self) -> None:
        """Cancel the requests and close the connections; the servers keep running."""
        if self.pool is not None:
            self.pool.close()
        self.pool = None
        self.begun.clear()

    def prefetch(self, rollouts: RolloutBatch) -> None:
        """Send the requests for the scores of trajectories."""
        for request in self._requests(self._prompted(rollouts)):
            self._begin(request)

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Wait for the scores of all response tokens."""
        assert self.pool is not None, "call setup() first"
        self._try_excluded(self.pool)
        prompted = self._prompted(rollouts)
        requests = self._requests(prompted)
        futures = [self._begin(request) for request in requests]
        found = self.pool.gather(futures)
        with self.lock:
            for request in requests:
                self.begun.pop(request, None)
        values = torch.zeros(*prompted.tokens.shape, 2)
        rows = [row for row, mask in enumerate(prompted.response_mask) if mask.any()]
        for row, request, scores in zip(rows, requests, found, strict=True):
            mask = prompted.response_mask[row].cpu()
            values[row, mask] = scores[mask[request.first : len(request.tokens)]]
        values = values.to(rollouts.sampling_logprobs)
        logprobs, entropies = (
            align_to(rollouts, part, prompted.response_mask) if self.context else part for part in values.unbind(-1)
        )
        missing = rollouts.response_mask & (rollouts.tokens >= self.vocabulary)
        logprobs = logprobs.clamp(max=0.0).masked_fill(missing, MISSING_TOKEN_LOGPROB)
        return TokenScores(logprobs, entropies.clamp(min=0.0) if entropy else None)

    def prompt_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt as this teacher sees it, with its context."""
        if not self.context:
            return prompt.tokens
        self.tokenizer = self.tokenizer or load_tokenizer(self.path, "teacher")
        return self.filled.prompt_tokens(prompt, self.tokenizer)

    def _prompted(self, rollouts: RolloutBatch) -> RolloutBatch:
        if not self.context:
            return rollouts
        return replace_prompts(rollouts, [self.prompt_tokens(prompt) for prompt in rollouts.prompts])

    def _requests(self, rollouts: RolloutBatch) -> list[Request]:
        """Return the request for each row with a response."""
        tokens, last = rollouts.tokens.clamp(max=self.vocabulary - 1).tolist(), rollouts.tokens.shape[1]
        masks = rollouts.response_mask.tolist()
        return [
            Request(tuple(row[: last - mask[::-1].index(True)]), mask.index(True), rollouts.sampling.temperature)
            for row, mask in zip(tokens, masks, strict=True)
            if True in mask
        ]

    def _begin(self, request: Request) -> "Future[Tensor]":
        """Return the pending scores of a sequence; request them unless they were requested before."""
        assert self.pool is not None, "call setup() first"
        with self.lock:
            known = self.begun.get(request)
            if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
                ask = partial(_scores, request, self.vocabulary)
                known = self.begun[request] = self.pool.submit(ask, partial(_rejected, self.pool.key))
            return known

    def _try_excluded(self, pool: ServerPool) -> None:
        """Include servers again whose pause is over and which still serve the model; each exclusion doubles it."""
        for server in pool.clients:
            if server.url not in pool.excluded:
                continue
            if server.url not in self.pauses:
                self.failures[server.url] = self.failures.get(server.url, 0) + 1
                self.pauses[server.url] = 2 ** (self.failures[server.url] - 1)
            self.pauses[server.url] -= 1
            if self.pauses[server.url] <= 0 and server.health_problem() is None:
                del self.pauses[server.url]
                pool.include(server)
                rank_zero_info(f"{server.url} is included again")


def _scores(request: Request, vocabulary: int, server: ServerClient) -> Tensor:
    return server.scores(request.tokens, request.first, request.temperature, vocabulary)


def _rejected(key: str, server: ServerClient, error: RefusedError) -> UserError:
    remedy = "start the servers with the teacher's model and a longer context (--max-model-len)"
    return UserError(key, server.url, f"rejects a trajectory ({error})", remedy)
