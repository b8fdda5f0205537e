"""Teachers: frozen models that read the student's trajectories. Entry-point group: `fireopd.teachers`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd import collectives
from fireopd.contexts import after_prompts, align
from fireopd.distributions import Distributions, Head
from fireopd.errors import UserError
from fireopd.models import Dtype, context_length, encode_chats, load_causal_lm, load_config, load_tokenizer, stop_tokens
from fireopd.scoring import CHUNK_LOGITS, CausalScorer, score_rollouts
from fireopd.stopwatches import Stopwatch
from fireopd.types import Prompt, RolloutBatch, TokenScores

MAX_DISCREPANCY = 0.05
"""How far scoring by chunks may be from a model's own logits, nats: far above rounding, far below a missed soft-cap."""


def unsharded(scorer: CausalScorer) -> None:
    """Leave a model whole."""


class Teacher(ABC):
    """A frozen model that says how likely it finds each token of a trajectory."""

    @abstractmethod
    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Raise `UserError` if the teacher cannot read what the student writes. Loads no weights.

        Args:
            key: the setting that the teacher comes from, for example `model.teachers.math`.
            student: the student's model.
            prompts: all that the teacher will judge trajectories of.
            response_length: tokens of the longest response.
        """

    @abstractmethod
    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None]) -> None:
        """Load the weights; the constructor only stores settings. A second call does nothing.

        Args:
            key: the setting that the teacher comes from.
            device: of this process.
            shard: shards a model over the processes where they share it; else does nothing.
        """

    @abstractmethod
    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Return the scores of every response token, float32 [B, L], at the temperature of the rollouts.

        Every process calls, with rows of its own or none, since the processes may share the model.
        """

    def check_distributions(self, key: str, student: str) -> None:
        """Raise `UserError` if the teacher's distributions cannot be compared with the student's; loads no weights.

        A teacher that overrides this overrides `score_with_distributions` too.

        Args:
            key: the setting that the teacher comes from.
            student: the student's model.
        """
        problem = "it tells of sampled tokens alone, and a strategy compares distributions over the whole vocabulary"
        raise UserError(key, type(self).__name__, problem, "use an HFTeacher, or strategies that do without")

    def score_with_distributions(self, rollouts: RolloutBatch, *, entropy: bool) -> tuple[TokenScores, Distributions]:
        """Return what `score` does, with what it takes to say each token's distribution again. Every process calls."""
        raise NotImplementedError(f"{type(self).__name__} gives no distributions")


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

    def score_with_distributions(self, rollouts: RolloutBatch, *, entropy: bool) -> tuple[TokenScores, Distributions]:
        """Score every response token, and keep the last hidden states."""
        scores = self._score(rollouts, entropy=entropy, keep_states=True)
        assert self.scorer is not None
        assert scores.states is not None
        dtype = scores.states[0].dtype if scores.states else torch.float32
        head = Head.of(self.scorer.model, dtype, rollouts.tokens.device)
        return scores, Distributions(scores.states, (head,) * len(scores.states))

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


def check_scorer(key: str, name: str, scorer: CausalScorer) -> None:
    """Score one probe, and compare it with the model's own logits.

    Raises:
        UserError: if the answer is not finite, or not what the model itself would say.
    """
    device = scorer.model.device
    probe = torch.arange(min(16, scorer.model.get_output_embeddings().weight.shape[0]), device=device)[None]
    gap = scorer.discrepancy(probe)
    if not gap <= MAX_DISCREPANCY:
        problem = f"scores of a probe differ from the model's own logits by {gap:.3g} nats"
        remedy = "use a model with finite weights whose logits are its output head applied to its last hidden states"
        raise UserError(key, name, problem, remedy)


def share(teachers: Mapping[str, Teacher]) -> dict[str, Teacher]:
    """Return the teachers with those of equal settings replaced by one object, so that it is loaded once."""
    unique: list[Teacher] = []
    shared: dict[str, Teacher] = {}
    for name, teacher in teachers.items():
        if teacher not in unique:
            unique.append(teacher)
        shared[name] = unique[unique.index(teacher)]
    return shared


def score_by_teachers(
    teachers: Mapping[str, Teacher], rollouts: RolloutBatch, watch: Stopwatch, *, entropy: bool, distributions: bool
) -> tuple[TokenScores, Distributions | None]:
    """Have each teacher score its own rows, and put the answers back in place.

    Args:
        teachers: by name; one that no row names does nothing.
        rollouts: B trajectories.
        watch: takes the seconds of each teacher, as `teacher/<name>`.
        entropy: whether the entropies are wanted.
        distributions: whether the distributions are wanted.

    Returns:
        Scores of [B, L], and the distributions at the response tokens of the B rows if they are wanted.
    """
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    entropies = torch.zeros_like(logprobs) if entropy else None
    known: dict[int, tuple[Tensor, Head]] = {}
    for name, teacher in teachers.items():
        rows = [row for row, own in enumerate(rollouts.teachers) if own == name]
        if not rows and collectives.world_size() == 1:
            continue
        with watch(f"teacher/{name}"):
            index = torch.tensor(rows, dtype=torch.int64, device=logprobs.device)
            part = rollouts.select(index)
            if distributions:
                scores, own_distributions = teacher.score_with_distributions(part, entropy=entropy)
                pairs = zip(own_distributions.states, own_distributions.heads, strict=True)
                known |= dict(zip(rows, pairs, strict=True))
            else:
                scores = teacher.score(part, entropy=entropy)
            width = part.tokens.shape[1]
            logprobs[index, :width] = scores.logprobs
            if entropies is not None and scores.entropy is not None:
                entropies[index, :width] = scores.entropy
    in_place = [known[row] for row in sorted(known)]
    found = Distributions(tuple(s for s, _ in in_place), tuple(h for _, h in in_place)) if distributions else None
    return TokenScores(logprobs, entropies), found
