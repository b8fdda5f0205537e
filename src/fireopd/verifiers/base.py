"""Base class of verifiers, which grade responses without a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.errors import UserError
from fireopd.types import Prompt

__all__ = ["Grade", "Verdict", "Verifier", "check_references"]


@dataclass(frozen=True, slots=True)
class Grade:
    """Grade of one response."""

    reward: float
    """Reward in [0, 1]."""
    answer: str | None
    """Final answer of the response in the form that is counted in a majority vote; None if there is no answer."""


Verdict = Grade
"""Old name of `Grade`, until version 0.3."""


class Verifier(ABC):
    """Grades responses."""

    @abstractmethod
    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return a reward in [0, 1]. Must neither hang nor raise for any response."""

    @abstractmethod
    def final_answer(self, response: str) -> str | None:
        """Return the final answer in the form that is counted in a majority vote; None if there is no answer."""

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Grade]:
        """Return the grades of responses. Override this to grade several responses in parallel."""
        pairs = zip(prompts, responses, strict=True)
        return [Grade(self(prompt, response), self.final_answer(response)) for prompt, response in pairs]

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:  # noqa: B027 - optional
        """Check before the run that responses to the prompts can be graded on this machine.

        Args:
            key: setting of this verifier, for error messages.
            prompts: all prompts of the run that this verifier grades.

        Raises:
            UserError: if they cannot be graded.
        """


def check_references(key: str, prompts: Sequence[Prompt]) -> None:
    """Check that no reference answer is empty; a prompt may have none.

    Raises:
        UserError: that names the first prompt with an empty reference answer.
    """
    for prompt in prompts:
        if prompt.answer is not None and not prompt.answer.strip():
            raise UserError(key, prompt.id, "its reference answer is empty", "give it an answer, or remove the row")
