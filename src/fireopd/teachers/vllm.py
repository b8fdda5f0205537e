"""Teacher on vLLM servers, started with `fireopd serve MODEL --teacher` on this machine or others."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
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
from fireopd.teachers.score_requests import ScoreRequest, ScoreRequests
from fireopd.teachers.vocabulary import MISSING_TOKEN_LOGPROB, checked_tokenizer
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["VLLMTeacher"]

QUICK = 60.0
"""Time limit of the checks before a run, seconds."""


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
    requests: ScoreRequests | None = field(default=None, init=False, compare=False, repr=False)
    """Pending requests and connections, after `setup`."""

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
        if self.requests is not None:
            return
        token = server_token()
        clients = [ServerClient(url, self.timeout, token) for url in self.servers]
        pool = ServerPool(clients, self.concurrency, f"{key}.servers", "a later batch")
        self.requests = ScoreRequests(pool, vocabulary_size(self.path, f"{key}.path"))
        self.requests.compare_replicas()

    def close(self) -> None:
        """Cancel the requests and close the connections; the servers keep running."""
        if self.requests is not None:
            self.requests.close()
        self.requests = None

    def prefetch(self, rollouts: RolloutBatch) -> None:
        """Send the requests for the scores of trajectories."""
        assert self.requests is not None, "call setup() first"
        for request in self._requests(self._prompted(rollouts), self.requests.vocabulary):
            self.requests.begin(request)

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Wait for the scores of all response tokens."""
        assert self.requests is not None, "call setup() first"
        vocabulary, prompted = self.requests.vocabulary, self._prompted(rollouts)
        requests = self._requests(prompted, vocabulary)
        values = torch.zeros(*prompted.tokens.shape, 2)
        masks = [(row, mask) for row, mask in enumerate(prompted.response_mask.cpu()) if mask.any()]
        for (row, mask), request, scores in zip(masks, requests, self.requests.scores(requests), strict=True):
            values[row, mask] = scores[mask[request.first : len(request.tokens)]]
        values = values.to(rollouts.sampling_logprobs)
        logprobs, entropies = (
            align_to(rollouts, part, prompted.response_mask) if self.context else part for part in values.unbind(-1)
        )
        missing = rollouts.response_mask & (rollouts.tokens >= vocabulary)
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

    def _requests(self, rollouts: RolloutBatch, vocabulary: int) -> list[ScoreRequest]:
        """Return the request for each row with a response."""
        tokens, last = rollouts.tokens.clamp(max=vocabulary - 1).tolist(), rollouts.tokens.shape[1]
        masks = rollouts.response_mask.tolist()
        return [
            ScoreRequest(tuple(row[: last - mask[::-1].index(True)]), mask.index(True), rollouts.sampling.temperature)
            for row, mask in zip(tokens, masks, strict=True)
            if True in mask
        ]
