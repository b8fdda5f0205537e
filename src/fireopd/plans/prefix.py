"""Prefixes: the response starts with tokens of a teacher, or of a reference solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fireopd.errors import UserError
from fireopd.plans.base import RolloutPlan, ends_of, value_of
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.types import Prompt, Response, Source
from fireopd.types.schedule import Schedule

__all__ = ["SolutionPrefix", "TeacherPrefix"]


@dataclass(frozen=True)
class TeacherPrefix(RolloutPlan):
    """A teacher writes the first tokens, the student the rest: off-policy guidance of TrOPD (arXiv 2606.01249).

    The paper shortens the prefix to 0 by a cosine schedule: `{from: 64, to: 0, steps: 200, shape: cosine}`. Its code is
    not released; the longest prefix is not stated. If the teacher finishes within the prefix, this is the response.
    """

    length: int | Schedule = 64
    """Tokens of the prefix, at least 0 and less than `data.engine.max_response_length`."""
    teacher: str | None = None
    """Name of the teacher that writes; null for that of the prompt."""

    sources = frozenset({Source.STUDENT, Source.TEACHER})
    has_drafts = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if min(ends_of("length", self.length)) < 0:
            raise ValueError(f"length must be at least 0, got {self.length}")

    def check(self, key: str, prompts: Sequence[Prompt], max_length: int) -> None:
        """Raise `UserError` if the prefix leaves no token of the response to the student."""
        longest = round(max(ends_of("length", self.length)))
        if longest >= max_length:
            problem = f"the prefix is not shorter than the response, {max_length} tokens"
            remedy = "lower it, or raise data.engine.max_response_length"
            raise UserError(f"{key}.length", longest, problem, remedy)

    def writers(self, prompt: Prompt) -> frozenset[str]:
        """Return the teacher that writes."""
        return frozenset({self.teacher or prompt.teacher})

    def drafts(self, prompt: Prompt, now: RolloutContext) -> list[RowPlan]:
        """Return the prefixes of the teacher."""
        length = round(value_of(self.length, now.policy_version))
        return [RowPlan(length, sampler=self.teacher or prompt.teacher)] * (now.responses if length else 0)

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return a row after each prefix."""
        if not drafts:
            return [RowPlan(now.max_length)] * now.responses
        return [RowPlan(now.max_length, prefix=draft.response) for draft in drafts]


@dataclass(frozen=True)
class SolutionPrefix(RolloutPlan):
    """The response starts with a share of the reference solution; the student writes the rest.

    The tokens of the solution are context: they are not trained on, unless the objective asks for them.
    """

    share: float | Schedule = 0.5
    """Part of the solution's tokens, in [0, 1), rounded down."""

    sources = frozenset({Source.STUDENT, Source.GIVEN})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        first, last = ends_of("share", self.share)
        if not (0 <= first < 1 and 0 <= last < 1):
            raise ValueError(f"share must be at least 0 and less than 1, got {self.share}")

    def check(self, key: str, prompts: Sequence[Prompt], max_length: int) -> None:
        """Raise `UserError` if a prompt has no solution."""
        without = next((prompt for prompt in prompts if not prompt.solution), None)
        if without is not None:
            remedy = "give the row a solution (data.prompts.columns.solution), or use TeacherPrefix"
            raise UserError(key, without.id, "SolutionPrefix starts from the solution, and the prompt has none", remedy)

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return rows after the start of the solution; at least one token of the response is left to the student."""
        tokenizer: Any = now.tokenizer
        tokens = tokenizer(prompt.solution, add_special_tokens=False)["input_ids"]
        count = min(int(value_of(self.share, now.policy_version) * len(tokens)), now.max_length - 1)
        prefix = Response.given(tokens[:count]) if count else None
        return [RowPlan(now.max_length, prefix=prefix)] * now.responses
