"""Teachers: frozen models that read the student's trajectories. Entry-point group: `fireopd.teachers`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models import Dtype, load_causal_lm, load_tokenizer
from fireopd.scoring import CausalScorer, score_rollouts
from fireopd.stopwatches import Stopwatch
from fireopd.types import RolloutBatch, TokenScores

MAX_DISCREPANCY = 0.05
"""How far scoring by chunks may be from a model's own logits, nats: far above rounding, far below a missed soft-cap."""


class Teacher(ABC):
    """A frozen model that says how likely it finds each token of a trajectory."""

    @abstractmethod
    def check(self, key: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise `UserError` if the teacher cannot read what the student writes. Loads no weights.

        Args:
            key: the setting that the teacher comes from, for example `model.teachers.math`.
            tokenizer: the student's.
        """

    @abstractmethod
    def setup(self, key: str, device: torch.device) -> None:
        """Load the weights; the constructor only stores settings. A second call does nothing."""

    @abstractmethod
    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Return the scores of every response token, float32 [B, L], at the temperature of the rollouts."""


@dataclass(unsafe_hash=True)
class HFTeacher(Teacher):
    """A Hugging Face causal LM in this process. Two teachers of the same settings share one copy of the weights."""

    path: str
    """A model folder, a hub name, or an embedded model such as `tiny/math`."""
    dtype: Dtype = "float32"
    """Type of the parameters."""
    token_budget: int = 16384
    """Tokens scored at once, padding included."""
    chunk_tokens: int = 1024
    """Tokens that go through the head at once."""
    scorer: CausalScorer | None = field(default=None, init=False, compare=False, repr=False)
    """The model, once it is loaded."""

    def check(self, key: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare vocabularies and special tokens with the student's."""
        own = load_tokenizer(self.path, f"{key}.path")
        remedy = "choose a teacher of the student's model family"
        if own.get_vocab() != tokenizer.get_vocab():
            sizes = f"{len(own.get_vocab())} tokens against {len(tokenizer.get_vocab())}"
            raise UserError(f"{key}.path", self.path, f"its vocabulary differs from the student's ({sizes})", remedy)
        for name in ("eos_token", "bos_token"):
            theirs, ours = own.special_tokens_map.get(name), tokenizer.special_tokens_map.get(name)
            if theirs != ours:
                problem = f"its {name} is {theirs!r}, the student's {ours!r}"
                raise UserError(f"{key}.path", self.path, problem, remedy)

    def setup(self, key: str, device: torch.device) -> None:
        """Load the model, freeze it, and score one probe."""
        if self.scorer is not None:
            return
        model = load_causal_lm(self.path, f"{key}.path", self.dtype, device).eval().requires_grad_(False)
        self.scorer = CausalScorer(model, self.chunk_tokens)
        check_scorer(f"{key}.path", self.path, self.scorer)

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Score every response token."""
        assert self.scorer is not None, "setup() comes first"
        return score_rollouts(self.scorer, rollouts, entropy=entropy, token_budget=self.token_budget)


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
    unique: dict[Teacher, Teacher] = {}
    return {name: unique.setdefault(teacher, teacher) for name, teacher in teachers.items()}


def score_by_teachers(
    teachers: Mapping[str, Teacher], rollouts: RolloutBatch, watch: Stopwatch, *, entropy: bool
) -> TokenScores:
    """Have each teacher score its own rows, and put the answers back in place.

    Args:
        teachers: by name; one that no row names does nothing.
        rollouts: B trajectories.
        watch: takes the seconds of each teacher, as `teacher/<name>`.
        entropy: whether the entropies are wanted.

    Returns:
        Scores of [B, L].
    """
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    entropies = torch.zeros_like(logprobs) if entropy else None
    for name, teacher in teachers.items():
        rows = [row for row, own in enumerate(rollouts.teachers) if own == name]
        if not rows:
            continue
        with watch(f"teacher/{name}"):
            index = torch.tensor(rows, device=logprobs.device)
            part = rollouts.select(index)
            scores = teacher.score(part, entropy=entropy)
            width = part.tokens.shape[1]
            logprobs[index, :width] = scores.logprobs
            if entropies is not None and scores.entropy is not None:
                entropies[index, :width] = scores.entropy
    return TokenScores(logprobs, entropies)
