"""Short rollouts: ESR."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.plans.base import RolloutPlan, check_length, ends_of, value_of
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.types import Prompt
from fireopd.types.schedule import Schedule

__all__ = ["ShortRollouts"]


@dataclass(frozen=True)
class ShortRollouts(RolloutPlan):
    """Only the first tokens of each response are sampled: ESR (arXiv 2605.27028).

    The tokens are those at the start of the full responses with the same seed. A schedule lengthens or shortens the
    rollouts in the course of the run (POPD, TOPD, arXiv 2605.31490). Validation has full responses.
    """

    length: int | Schedule = 100
    """Tokens of a response, at least 1 and at most `data.engine.max_response_length`."""

    cuts_responses = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if min(ends_of("length", self.length)) < 1:
            raise ValueError(f"length must be at least 1, got {self.length}")

    def check(self, key: str, prompts: Sequence[Prompt], max_length: int) -> None:
        """Raise `UserError` if the length exceeds that of the engine."""
        check_length(key, "length", round(max(ends_of("length", self.length))), max_length)

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return rows of this length."""
        return [RowPlan(round(value_of(self.length, now.policy_version)))] * now.responses
