"""Teachers that are the student itself, read without gradient: self-distillation.

The student with its current weights, a moving average of them, or its initial weights judges the student's responses.
With a context, it knows more than the student: the solution of the row, a rubric, worked examples. This gives OPSD
(arXiv 2601.18734), SDFT (2601.19897), SDPO (2601.20802) and on-policy context distillation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.models.distributions import TeacherDistributions
from fireopd.models.loading import context_length, load_tokenizer
from fireopd.models.output_head import OutputHead
from fireopd.models.scorer import CausalScorer
from fireopd.models.student_versions import StudentVersions
from fireopd.teachers.base import Teacher, leave_unsharded
from fireopd.teachers.context import TeacherContext, score_after
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["EMAStudentTeacher", "InitialStudentTeacher", "StudentTeacher"]


@dataclass
class StudentTeacher(Teacher):
    """The student with its current weights."""

    context: list[dict[str, str]] = field(default_factory=list)
    """Chat messages that only the teacher sees, with placeholders such as `{solution}`; see
    `fireopd.teachers.context.TeacherContext`."""
    token_budget: int = 16384
    """Tokens per micro-batch of scoring, padding included."""
    scorer: CausalScorer | None = field(default=None, init=False, compare=False, repr=False)
    """The weights that score, after `attach`."""
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, init=False, compare=False, repr=False)
    """The student's tokenizer, after `check`."""
    filled: TeacherContext = field(init=False, compare=False, repr=False)
    """The context, which is filled in for each prompt."""

    def __post_init__(self) -> None:
        """Check the messages of the context and the range of the settings."""
        self.filled = TeacherContext(self.context)
        if self.token_budget < 1:
            raise ValueError(f"token_budget must be at least 1, got {self.token_budget}")

    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Check the context of each prompt, and the length with it."""
        self.tokenizer = load_tokenizer(student, "model.student")
        limit = context_length(student, "model.student")
        self.filled.check(key, prompts, self.tokenizer, limit=limit, response_length=response_length)

    def prompt_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt as this teacher sees it, with its context; `check` comes first."""
        if not self.context:
            return prompt.tokens
        assert self.tokenizer is not None, "call check() first"
        return self.filled.prompt_tokens(prompt, self.tokenizer)

    @property
    def version(self) -> str:
        """Weights that score: `current`, `initial`, or `average` with its decay."""
        return "current"

    def reads_student(self, student: str, dtype: str, *, adapter: bool) -> bool:
        """Return True."""
        return True

    def attach(self, versions: StudentVersions) -> None:
        """Score with the student."""
        self.scorer = versions.current

    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None] = leave_unsharded) -> None:
        """Do nothing: the student is loaded by the run, see `attach`."""

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Score all response tokens."""
        return self._score(rollouts, entropy=entropy, keep_hidden_states=False)

    def check_distributions(self, key: str, student: str) -> None:
        """Accept: the distributions are those of the student."""

    def score_with_distributions(
        self, rollouts: RolloutBatch, *, entropy: bool
    ) -> tuple[TokenScores, TeacherDistributions]:
        """Score all response tokens and keep the last hidden states, with a copy of the output layer if it is trained.

        Later mini-batches of the step change the student's own output layer.
        """
        scores = self._score(rollouts, entropy=entropy, keep_hidden_states=True)
        assert self.scorer is not None
        assert scores.hidden_states is not None
        dtype = scores.hidden_states[0].dtype if scores.hidden_states else torch.float32
        head = OutputHead.from_model(self.scorer.model, dtype, rollouts.tokens.device)
        trained = self.scorer.model.get_output_embeddings().weight.requires_grad
        if trained and not self.scorer.sharded:  # the head of a sharded model is gathered, hence a copy
            head = replace(head, weight=head.weight.clone(), bias=None if head.bias is None else head.bias.clone())
        return scores, TeacherDistributions(scores.hidden_states, (head,) * len(scores.hidden_states))

    def _score(self, rollouts: RolloutBatch, *, entropy: bool, keep_hidden_states: bool) -> TokenScores:
        assert self.scorer is not None, "call attach() first"
        prompts = [self.prompt_tokens(prompt) for prompt in rollouts.prompts] if self.context else None
        settings = {"entropy": entropy, "token_budget": self.token_budget, "keep_hidden_states": keep_hidden_states}
        return score_after(self.scorer, rollouts, prompts, **settings)


@dataclass
class EMAStudentTeacher(StudentTeacher):
    """Exponential moving average of the student's weights, updated after each optimizer step; part of checkpoints."""

    decay: float = 0.999
    """Part of the average that stays at an update: average = decay x average + (1 - decay) x student."""

    def __post_init__(self) -> None:
        """Check context and range of the settings."""
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and less than 1, got {self.decay}")

    @property
    def version(self) -> str:
        """Moving average with its decay."""
        return f"average {self.decay}"

    def attach(self, versions: StudentVersions) -> None:
        """Score with the moving average."""
        self.scorer = versions.average(self.decay)


@dataclass
class InitialStudentTeacher(StudentTeacher):
    """The student with its initial weights: a frozen copy, or with an adapter the model below it, without a copy."""

    @property
    def version(self) -> str:
        """Initial weights."""
        return "initial"

    def attach(self, versions: StudentVersions) -> None:
        """Score with the initial weights."""
        self.scorer = versions.initial()
