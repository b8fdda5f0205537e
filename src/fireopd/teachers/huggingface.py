"""Teacher that runs a Hugging Face causal language model in the training process.

Models of one family pad their vocabulary to different multiples, so the output layers of teacher and student may differ
in size. Each scores tokens under its own distribution. A token beyond the teacher's vocabulary, a padding that no text
contains, has the log-probability `MISSING_TOKEN_LOGPROB`; later tokens see the teacher's last token in its place.
Comparisons of distributions use the tokens that both have (`fireopd.models.distributions`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.engines import HFEngine, MemoryPart, RolloutEngine, VLLMServerEngine
from fireopd.engines.vllm.server_pool import check_addresses
from fireopd.engines.vllm.teacher_engine import TeacherServerEngine
from fireopd.errors import UserError
from fireopd.models.architecture import check_architecture
from fireopd.models.attention import Attention, use_attention
from fireopd.models.distributions import TeacherDistributions
from fireopd.models.kernels import Kernels, use_layer_kernels
from fireopd.models.loading import (
    Dtype,
    context_length,
    load_causal_lm,
    load_config,
    load_tokenizer,
    same_model,
    stop_tokens,
    vocabulary_size,
)
from fireopd.models.model_size import count_parameters, dtype_size
from fireopd.models.output_head import OutputHead
from fireopd.models.placement import Placement
from fireopd.models.quantization import Quantization, load_quantized, quantized_bytes
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer
from fireopd.models.student_versions import StudentVersions
from fireopd.teachers.base import Teacher, leave_unsharded
from fireopd.teachers.context import TeacherContext, score_after
from fireopd.teachers.sampling import TeacherSampler
from fireopd.teachers.vocabulary import MISSING_TOKEN_LOGPROB, checked_tokenizer
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["MISSING_TOKEN_LOGPROB", "HFTeacher"]


@dataclass
class HFTeacher(Teacher):
    """Hugging Face causal LM in this process. Teachers with equal settings share one copy of the weights."""

    path: str
    """A model folder, a hub name, or an embedded model such as `tiny/math`."""
    dtype: Dtype = "float32"
    """Dtype of the parameters."""
    token_budget: int = 16384
    """Tokens per micro-batch of scoring, padding included."""
    chunk_logits: int = CHUNK_LOGITS
    """Number of logits (tokens x vocabulary) in memory at a time; at least those of one token."""
    context: list[dict[str, str]] = field(default_factory=list)
    """Chat messages that only the teacher sees, before the messages of the prompt: worked examples, a rubric, the row's
    own `{solution}`; see `fireopd.teachers.context.TeacherContext`."""
    kernels: Kernels = "torch"
    """Implementation of the log-probabilities: `torch`, or `triton` (GPUs only)."""
    attn_implementation: Attention | None = None
    """Implementation of attention, for example `flash_attention_2`; None for the choice of transformers."""
    quantization: Quantization | None = None
    """`int8` or `int4` weights of the linear layers, see `fireopd.models.quantization`; None for weights of `dtype`."""
    sampling_servers: list[str] = field(default_factory=list)
    """Addresses of vLLM servers that write responses for a rollout plan in the place of this process, each started with
    `fireopd serve MODEL --port PORT`; empty for this process."""
    scorer: CausalScorer | None = field(default=None, init=False, compare=False, repr=False)
    """The model, after `setup`."""
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, init=False, compare=False, repr=False)
    """The teacher's tokenizer, loaded on first use if there is a context."""
    filled: TeacherContext = field(init=False, compare=False, repr=False)
    """The context, which is filled in for each prompt."""
    served: TeacherServerEngine | None = field(default=None, init=False, compare=False, repr=False)
    """Engine on the servers, if the teacher samples there."""

    def __post_init__(self) -> None:
        """Check the messages of the context and the addresses."""
        self.filled = TeacherContext(self.context)
        if self.sampling_servers:
            check_addresses(self.sampling_servers, 1, 1.0, "sampling_servers")

    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Compare vocabulary, special tokens and stop tokens with the student's; check lengths against the context."""
        check_architecture(self.path, f"{key}.path")
        own = checked_tokenizer(self.path, key, student)
        limit = context_length(self.path, f"{key}.path")
        self.filled.check(key, prompts, own, limit=limit, response_length=response_length)

    def prompt_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt as this teacher sees it, with its context."""
        if not self.context:
            return prompt.tokens
        self.tokenizer = self.tokenizer or load_tokenizer(self.path, "teacher")
        return self.filled.prompt_tokens(prompt, self.tokenizer)

    def memory(self, shards: int) -> dict[str, MemoryPart]:
        """Return the bytes of this process's part of the weights."""
        count, width = count_parameters(load_config(self.path, "teacher")), dtype_size(self.dtype)
        over = f" / {shards} processes" if shards > 1 else ""
        if self.quantization is not None:
            size = quantized_bytes(load_config(self.path, "teacher"), self.dtype, self.quantization)
            return {
                "weights": MemoryPart(size, f"{count / 1e6:.1f} M parameters, linear layers in {self.quantization}")
            }
        size = count * width // shards
        return {"weights": MemoryPart(size, f"{count / 1e6:.1f} M parameters x {width} B{over}")}

    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None] = leave_unsharded) -> None:
        """Load the model, freeze it, score a probe, and move it to its place."""
        if self.scorer is not None:
            return
        placement = shard if isinstance(shard, Placement) else Placement(device)
        if self.quantization is None:
            load = partial(load_causal_lm, self.path, f"{key}.path", self.dtype)
        else:
            load = partial(load_quantized, self.path, f"{key}.path", self.dtype, self.quantization)
        model = placement.load(load)
        self.scorer = CausalScorer(model.eval().requires_grad_(False), self.chunk_logits, self.kernels)
        placement.check(f"{key}.path", self.path, self.scorer)
        use_attention(model, f"{key}.attn_implementation", self.attn_implementation)
        use_layer_kernels(model, self.kernels)
        shard(self.scorer)

    def reads_student(self, student: str, dtype: str, *, adapter: bool) -> bool:
        """Return True for the model below the student's adapter: the same folder, or name on the hub, and dtype."""
        equal = self.dtype == dtype and self.quantization is None
        return adapter and equal and same_model(self.path, student, "model.student")

    def attach(self, versions: StudentVersions) -> None:
        """Score with the student without its adapter, with this teacher's `chunk_logits` and `kernels`."""
        self.scorer = versions.initial()
        self.scorer.chunk_logits, self.scorer.kernels = self.chunk_logits, self.kernels

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Score all response tokens."""
        return self._score(rollouts, entropy=entropy, keep_hidden_states=False)

    def check_distributions(self, key: str, student: str) -> None:
        """Accept any student: `check` compares the vocabularies."""

    def score_with_distributions(
        self, rollouts: RolloutBatch, *, entropy: bool
    ) -> tuple[TokenScores, TeacherDistributions]:
        """Score all response tokens and keep the last hidden states."""
        scores = self._score(rollouts, entropy=entropy, keep_hidden_states=True)
        assert self.scorer is not None
        assert scores.hidden_states is not None
        dtype = scores.hidden_states[0].dtype if scores.hidden_states else torch.float32
        head = OutputHead.from_model(self.scorer.model, dtype, rollouts.tokens.device)
        return scores, TeacherDistributions(scores.hidden_states, (head,) * len(scores.hidden_states))

    @property
    def samples_here(self) -> bool:
        """False if servers sample."""
        return not self.sampling_servers

    def check_sampling(self, key: str, student: str) -> None:
        """Raise `UserError` if the model caches more than keys and values, or a server does not suit."""
        if self.samples_here:
            HFEngine(dtype=self.dtype).check(f"{key}.path", self.path)
            return
        sizes = [vocabulary_size(own, key) for own in (self.path, student)]
        if sizes[0] > sizes[1]:
            problem = f"the teacher has {sizes[0]} token ids, and the student {sizes[1]}; a server samples all of them"
            raise UserError(f"{key}.sampling_servers", self.path, problem, "leave it out, and sample in this process")
        self._server_engine(HFEngine(), key).check(key, self.path)

    def _server_engine(self, like: RolloutEngine, key: str) -> TeacherServerEngine:
        """Return an engine on the servers with the length and the sampling distribution of another engine."""
        own = (like.max_response_length, like.temperature, like.top_p, like.top_k)
        engine = partial(TeacherServerEngine, model=self.path, key=f"{key}.sampling_servers")
        if isinstance(like, VLLMServerEngine):
            engine = partial(engine, concurrency=like.concurrency, timeout=like.timeout)
        return engine(*own, servers=self.sampling_servers)

    def close(self) -> None:
        """Close the connections to servers, which keep running."""
        if self.served is not None:
            self.served.close()
        self.served = None

    def sampler(self, like: RolloutEngine, vocabulary: int) -> TeacherSampler:
        """Return an engine on the servers, or an `HFEngine` on the loaded model."""
        assert self.scorer is not None, "call setup() first"
        if not self.samples_here:
            self.served = self._server_engine(like, "model.teachers")
            self.served.setup(self.path, torch.device("cpu"))
            return TeacherSampler(self.served, self.prompt_tokens, context_length(self.path, "teacher"))
        slots = like.batch_size if isinstance(like, HFEngine) else HFEngine.batch_size
        own = like.sampling
        engine = HFEngine(like.max_response_length, own.temperature, own.top_p, own.top_k, batch_size=slots)
        stops = stop_tokens(self.path, "teacher", load_tokenizer(self.path, "teacher"))
        engine.share(self.scorer.model, stops, vocabulary)
        return TeacherSampler(engine, self.prompt_tokens, context_length(self.path, "teacher"))

    def _score(self, rollouts: RolloutBatch, *, entropy: bool, keep_hidden_states: bool) -> TokenScores:
        assert self.scorer is not None, "call setup() first"
        settings: dict[str, Any] = {"entropy": entropy, "token_budget": self.token_budget}
        settings["keep_hidden_states"] = keep_hidden_states
        size = self.scorer.model.get_output_embeddings().weight.shape[0]
        missing = rollouts.response_mask & (rollouts.tokens >= size)
        known = replace(rollouts, tokens=rollouts.tokens.clamp(max=size - 1))
        prompts = [self.prompt_tokens(prompt) for prompt in rollouts.prompts] if self.context else None
        scores = score_after(self.scorer, known, prompts, **settings)
        return replace(scores, logprobs=scores.logprobs.masked_fill(missing, MISSING_TOKEN_LOGPROB))
