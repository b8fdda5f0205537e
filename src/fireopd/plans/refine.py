"""Responses that a teacher rewrites: TRD."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fireopd.plans.base import RolloutPlan
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.teachers.context import TeacherContext
from fireopd.types import Prompt, Source

__all__ = ["Refine"]

REQUEST = """{question}

Here is a draft of the answer:

{details.draft}

Rewrite the draft: correct its errors, and keep what is correct."""
"""Message of the user to the teacher, of our wording."""


@dataclass(frozen=True)
class Refine(RolloutPlan):
    """A teacher rewrites each response of the student, and the student learns from the result: TRD (arXiv 2606.08432).

    The student writes a draft. The teacher reads the messages of `context`, with the draft as `{details.draft}`, and
    writes the response, which is trained on after the original prompt. The paper's prompt is not available: the default
    is ours. It also keeps the teacher near the support of the student; here, the draft in the context does.
    """

    context: list[dict[str, str]] = field(default_factory=lambda: [{"role": "user", "content": REQUEST}])
    """Chat messages that the teacher reads, with placeholders as in `fireopd.teachers.context.TeacherContext`, and
    `{details.draft}` for the draft."""
    teacher: str | None = None
    """Name of the teacher that rewrites; null for that of the prompt."""

    sources = frozenset({Source.TEACHER})
    has_drafts = True

    def __post_init__(self) -> None:
        """Check form and placeholders of the messages."""
        TeacherContext(self.context)
        if not any("{details.draft}" in message["content"] for message in self.context):
            raise ValueError(f"context must contain the draft, {{details.draft}}, got {self.context}")

    def writers(self, prompt: Prompt) -> frozenset[str]:
        """Return the teacher that rewrites."""
        return frozenset({self.teacher or prompt.teacher})

    def check(self, key: str, prompts: Sequence[Prompt], max_length: int) -> None:
        """Raise `UserError` if a prompt lacks a part of the messages."""
        for prompt in prompts:
            self._messages.chat(_with_draft(prompt, ""), f"{key}.context")

    @property
    def _messages(self) -> TeacherContext:
        return TeacherContext(self.context, frozenset({"details.draft"}))

    def drafts(self, prompt: Prompt, now: RolloutContext) -> list[RowPlan]:
        """Return responses of the student."""
        return [RowPlan(now.max_length)] * now.responses

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return rows of the teacher, which reads the drafts."""
        name = self.teacher or prompt.teacher
        return [RowPlan(now.max_length, sampler=name, prompt=self._request(prompt, now, own)) for own in drafts]

    def _request(self, prompt: Prompt, now: RolloutContext, draft: Draft) -> tuple[int, ...]:
        """Return the token ids of the teacher's prompt."""
        assert now.tokenizer is not None
        text = str(now.tokenizer.decode(list(draft.response.tokens), skip_special_tokens=True))
        return self._messages.prompt_tokens(_with_draft(prompt, text), now.tokenizer, f"{self.setting}.context")


def _with_draft(prompt: Prompt, draft: str) -> Prompt:
    """Return a prompt with the draft among its details."""
    return replace(prompt, details={**prompt.details, "draft": draft})
