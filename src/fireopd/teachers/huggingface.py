"""Teacher that runs a Hugging Face causal language model in the training process.

Models of one family pad their vocabulary to different multiples, so the output layers of teacher and student may differ
in size. Each scores tokens under its own distribution. A token beyond the teacher's vocabulary, a padding that no text
contains, has the log-probability `MISSING_TOKEN_LOGPROB`; later tokens see the teacher's last token in its place.
Comparisons of distributions use the tokens that both have (`fireopd.models.distributions`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.engines import MemoryPart
from fireopd.errors import UserError
from fireopd.models.architecture import check_architecture
from fireopd.models.distributions import TeacherDistributions
from fireopd.models.kernels import Kernels
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
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer, check_scorer, score_rollouts
from fireopd.teachers.base import Teacher, leave_unsharded
from fireopd.teachers.context import TeacherContext, align_to, replace_prompts
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["MISSING_TOKEN_LOGPROB", "HFTeacher"]

MISSING_TOKEN_LOGPROB = -20.0
"""Log-probability, in nats, of tokens that only the student has: paddings of its vocabulary."""


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
    scorer: CausalScorer | None = field(default=None, init=False, compare=False, repr=False)
    """The model, after `setup`."""
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, init=False, compare=False, repr=False)
    """The teacher's tokenizer, loaded on first use if there is a context."""
    filled: TeacherContext = field(init=False, compare=False, repr=False)
    """The context, which is filled in for each prompt."""

    def __post_init__(self) -> None:
        """Check the messages of the context."""
        self.filled = TeacherContext(self.context)

    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Compare vocabulary, special tokens and stop tokens with the student's; check lengths against the context."""
        check_architecture(self.path, f"{key}.path")
        own, tokenizer = load_tokenizer(self.path, f"{key}.path"), load_tokenizer(student, "model.student")
        remedy = "choose a teacher of the student's model family"
        if own.get_vocab() != tokenizer.get_vocab():
            sizes = f"{len(own.get_vocab())} tokens against {len(tokenizer.get_vocab())}"
            raise UserError(f"{key}.path", self.path, f"its vocabulary differs from the student's ({sizes})", remedy)
        for name in ("eos_token", "bos_token"):
            theirs, ours = own.special_tokens_map.get(name), tokenizer.special_tokens_map.get(name)
            if theirs != ours:
                problem = f"its {name} is {theirs!r}, the student's {ours!r}"
                raise UserError(f"{key}.path", self.path, problem, remedy)
        size, needed = (vocabulary_size(name, f"{key}.path") for name in (self.path, student))
        if size < needed and size <= max(own.get_vocab().values()):
            problem = f"its output layer has {size} tokens and the student's {needed}, but its tokenizer has more"
            raise UserError(f"{key}.path", self.path, problem, remedy)
        stops = [stop_tokens(name, key, tokenizer) for name in (self.path, student)]
        if stops[0] != stops[1]:
            theirs, ours = (", ".join(str(tokenizer.decode([token])) for token in sorted(ids)) for ids in stops)
            rank_zero_warn(f"{key}: the teacher stops at {theirs}, the student at {ours}: responses may become longer")
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
        size = count * width // shards
        return {"weights": MemoryPart(size, f"{count / 1e6:.1f} M parameters x {width} B{over}")}

    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None] = leave_unsharded) -> None:
        """Load the model, freeze it, score a probe, and shard it."""
        if self.scorer is not None:
            return
        model = load_causal_lm(self.path, f"{key}.path", self.dtype, device).eval().requires_grad_(False)
        self.scorer = CausalScorer(model, self.chunk_logits, self.kernels)
        check_scorer(f"{key}.path", self.path, self.scorer)
        shard(self.scorer)

    def is_model(self, name: str, dtype: str) -> bool:
        """Compare the folders, or the names on the hub, and the dtypes."""
        return self.dtype == dtype and same_model(self.path, name, "model.student")

    def share(self, scorer: CausalScorer) -> None:
        """Score with a model that is already loaded, with this teacher's `chunk_logits` and `kernels`."""
        self.scorer = scorer
        scorer.chunk_logits, scorer.kernels = self.chunk_logits, self.kernels

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

    def _score(self, rollouts: RolloutBatch, *, entropy: bool, keep_hidden_states: bool) -> TokenScores:
        assert self.scorer is not None, "call setup() first"
        settings: dict[str, Any] = {"entropy": entropy, "token_budget": self.token_budget}
        settings["keep_hidden_states"] = keep_hidden_states
        size = self.scorer.model.get_output_embeddings().weight.shape[0]
        missing = rollouts.response_mask & (rollouts.tokens >= size)
        known = replace(rollouts, tokens=rollouts.tokens.clamp(max=size - 1))
        if not self.context:
            scores = score_rollouts(self.scorer, known, **settings)
            return replace(scores, logprobs=scores.logprobs.masked_fill(missing, MISSING_TOKEN_LOGPROB))
        prompted = replace_prompts(known, [self.prompt_tokens(prompt) for prompt in rollouts.prompts])
        scores = score_rollouts(self.scorer, prompted, **settings)
        logprobs = align_to(rollouts, scores.logprobs, prompted.response_mask)
        logprobs = logprobs.masked_fill(missing, MISSING_TOKEN_LOGPROB)
        entropies = None if scores.entropy is None else align_to(rollouts, scores.entropy, prompted.response_mask)
        # Hidden states are stored per response token and need no alignment.
        return replace(scores, logprobs=logprobs, entropy=entropies)
