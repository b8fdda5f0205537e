"""Plan of plain on-policy distillation."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.plans.base import RolloutPlan
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.types import Prompt

__all__ = ["FixedPlan"]


@dataclass(frozen=True)
class FixedPlan(RolloutPlan):
    """`data.responses_per_prompt` responses of the student, as long as the engine allows."""

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return equal rows."""
        return [RowPlan(now.max_length)] * now.responses
