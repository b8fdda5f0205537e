"""Rollout plans: length, number, start and sampler of responses. Entry-point group: `fireopd.plans`.

A plan says for each prompt which rows to sample. It may first ask for drafts, such as the start of a response by a
teacher, and plans the rows with them. After each step it observes a summary of the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from fireopd.errors import UserError
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.plans.summary import BatchSummary
from fireopd.types import Prompt, Source
from fireopd.types.schedule import Schedule, check_schedule, value_at

__all__ = ["RolloutPlan", "check_length", "ends_of", "value_of"]


class RolloutPlan(ABC):
    """Says how the responses to each prompt are sampled.

    The rows of a prompt depend on this prompt, the context and the state of the plan only, not on the other prompts:
    one process and several make the same rollouts.
    """

    setting: ClassVar[str] = "data.plan"
    """Key of the run's setting that takes a plan."""

    @property
    def sources(self) -> frozenset[Source]:
        """Authors of the response tokens. A subclass may assign a frozenset."""
        return frozenset({Source.STUDENT})

    @property
    def has_drafts(self) -> bool:
        """True if `drafts` may return rows. A subclass may assign True."""
        return False

    @property
    def grades_drafts(self) -> bool:
        """True if `rows` reads the rewards of drafts, which requires verifiers. A subclass may assign True."""
        return False

    @property
    def cuts_responses(self) -> bool:
        """True if the plan cuts responses on purpose, which is then no sign of a failing run. May be assigned."""
        return False

    def writers(self, prompt: Prompt) -> frozenset[str]:
        """Return the names of the teachers that may sample tokens of the responses to a prompt."""
        return frozenset()

    def check(self, key: str, prompts: Sequence[Prompt], max_length: int) -> None:  # noqa: B027 - most have no limits
        """Raise `UserError` if a setting does not fit the run. Loads no weights.

        Args:
            key: setting that holds the plan.
            prompts: training prompts.
            max_length: maximum response length, tokens.
        """

    def drafts(self, prompt: Prompt, now: RolloutContext) -> list[RowPlan]:
        """Return the rows to sample before the rows of a prompt are planned, at most `now.responses`."""
        return []

    @abstractmethod
    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return the rows of a prompt, one per response, 1 to `now.responses`.

        Called in the thread of the rollout, on a copy of the plan with the state at the start of the rollout.

        Args:
            prompt: the prompt.
            now: seed, number of the batch, policy version and limits.
            drafts: one per row of `drafts`, in order.
        """

    def observe(self, summary: BatchSummary) -> None:  # noqa: B027 - most plans have no state
        """Take note of a batch after the step on it. Every process calls with the same batches, in their order."""


def ends_of(name: str, setting: float | Schedule) -> tuple[float, float]:
    """Return the first and the last value of a setting that may follow a schedule; raise `ValueError` if it is bad."""
    if not isinstance(setting, dict):
        return setting, setting
    check_schedule(name, setting)
    return setting["from"], setting["to"]


def value_of(setting: float | Schedule, policy_version: int) -> float:
    """Return the value of a setting that may follow a schedule, at an optimizer step."""
    return value_at(setting, policy_version) if isinstance(setting, dict) else setting


def check_length(key: str, name: str, length: int, max_length: int) -> None:
    """Raise `UserError` if a number of tokens exceeds the maximum response length."""
    if length > max_length:
        problem = f"data.engine.max_response_length is {max_length}"
        remedy = "lower it, or raise data.engine.max_response_length, which must fit into the context with the prompt"
        raise UserError(f"{key}.{name}", length, problem, remedy)
