"""Teacher that runs a Hugging Face causal language model in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models.distributions import Head, TeacherDistributions
from fireopd.models.loading import (
    Dtype,
    context_length,
    encode_chats,
    load_causal_lm,
    load_config,
    load_tokenizer,
    stop_tokens,
)
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer, check_scorer, score_rollouts
from fireopd.teachers.base import Teacher, unsharded
from fireopd.teachers.context import after_prompts, align
from fireopd.types import Prompt, RolloutBatch, TokenScores


@dataclass
class HFTeacher(Teacher):
    """A Hugging Face causal LM in this process. Two teachers of the same settings share one copy of the weights."""

    path: str
    """A model folder, a hub name, or an embedded model such as `tiny/math`."""
    dtype: Dtype = "float32"
    """Type of the parameters."""
    token_budget: int = 16384
    """Tokens scored at once, padding included."""
    chunk_logits: int = CHUNK_LOGITS
    """Logits held at once, tokens x vocabulary; those of one token at least."""
    context: list[dict[str, str]] = field(default_factory=list)
    """Chat messages that the teacher reads before those of the prompt, and the student does not: worked examples, a
    rubric (on-policy context distillation). They come after a prompt's own system message."""
    scorer: CausalScorer | None = field(default=None, init=False, compare=False, repr=False)
    """The model, once it is loaded."""
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, init=False, compare=False, repr=False)
    """The teacher's own, once a context had to be read."""
    readings: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What stands before the response, by the prompt's id, where there is a context."""

    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Compare vocabularies, special tokens and stop tokens with the student's, and lengths with the context."""
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
        stops = [stop_tokens(name, key, tokenizer) for name in (self.path, student)]
        if stops[0] != stops[1]:
            theirs, ours = (", ".join(str(tokenizer.decode([token])) for token in sorted(ids)) for ids in stops)
            rank_zero_warn(f"{key}: the teacher stops at {theirs}, the student at {ours}: responses may grow longer")
        self._check_prompts(key, prompts, response_length)

    def _check_prompts(self, key: str, prompts: Sequence[Prompt], response_length: int) -> None:
        limit = context_length(self.path, f"{key}.path")
        for prompt in prompts:
            if self.context and isinstance(prompt.content, str):
                problem, remedy = (
                    "chat messages cannot stand before a prompt of plain text",
                    "write it as chat messages",
                )
                raise UserError(f"{key}.context", prompt.id, problem, remedy)
            if limit is not None and len(self.reads(prompt)) + response_length > limit:
                problem = f"{len(self.reads(prompt))} tokens to read before a response of up to {response_length}"
                problem += f" do not fit into the teacher's context of {limit}"
                remedy = "shorten the prompt, the teacher's context, or data.engine.max_response_length"
                raise UserError(f"{key}.path", prompt.id, problem, remedy)

    def reads(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids that stand before the response when this teacher reads it."""
        if not self.context:
            return prompt.tokens
        if prompt.id not in self.readings:
            own: Any = prompt.content
            first = 1 if own[0]["role"] == "system" else 0
            messages = [*own[:first], *self.context, *own[first:]]
            self.tokenizer = self.tokenizer or load_tokenizer(self.path, "teacher")
            (self.readings[prompt.id],) = encode_chats(self.tokenizer, [messages], prompt.template_options)
        return self.readings[prompt.id]

    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None] = unsharded) -> None:
        """Load the model, freeze it, score one probe, and shard it."""
        if self.scorer is not None:
            return
        model = load_causal_lm(self.path, f"{key}.path", self.dtype, device).eval().requires_grad_(False)
        self.scorer = CausalScorer(model, self.chunk_logits)
        check_scorer(f"{key}.path", self.path, self.scorer)
        shard(self.scorer)

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Score every response token."""
        return self._score(rollouts, entropy=entropy, keep_states=False)

    def check_distributions(self, key: str, student: str) -> None:
        """Compare the sizes of the output layers."""
        names = ((self.path, f"{key}.path"), (student, "model.student"))
        own, other = (load_config(name, place).get_text_config().vocab_size for name, place in names)
        if own != other:
            problem = f"a strategy compares distributions, and it has {own} logits against the student's {other}"
            remedy = "choose a teacher with an output layer of the student's size, or strategies that do without"
            raise UserError(f"{key}.path", self.path, problem, remedy)

    def score_with_distributions(
        self, rollouts: RolloutBatch, *, entropy: bool
    ) -> tuple[TokenScores, TeacherDistributions]:
        """Score every response token, and keep the last hidden states."""
        scores = self._score(rollouts, entropy=entropy, keep_states=True)
        assert self.scorer is not None
        assert scores.hidden_states is not None
        dtype = scores.hidden_states[0].dtype if scores.hidden_states else torch.float32
        head = Head.of(self.scorer.model, dtype, rollouts.tokens.device)
        return scores, TeacherDistributions(scores.hidden_states, (head,) * len(scores.hidden_states))

    def _score(self, rollouts: RolloutBatch, *, entropy: bool, keep_states: bool) -> TokenScores:
        assert self.scorer is not None, "setup() comes first"
        settings: dict[str, Any] = {"entropy": entropy, "token_budget": self.token_budget, "keep_states": keep_states}
        if not self.context:
            return score_rollouts(self.scorer, rollouts, **settings)
        own = after_prompts(rollouts, [self.reads(prompt) for prompt in rollouts.prompts])
        scores = score_rollouts(self.scorer, own, **settings)
        aligned = None if scores.entropy is None else align(scores.entropy, own, rollouts)
        # States are those of response tokens alone, row by row: the same whatever stands before them.
        return replace(scores, logprobs=align(scores.logprobs, own, rollouts), entropy=aligned)
