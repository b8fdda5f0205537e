"""What a verifier is. Verifiers grade responses without a model. Entry-point group: `fireopd.verifiers`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.types import Prompt


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one response."""

    reward: float
    """Grade in [0, 1]."""
    answer: str | None
    """The answer that the response comes to, as it counts in a majority vote; None if it has none."""


class Verifier(ABC):
    """Grades a response."""

    @abstractmethod
    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return a grade in [0, 1]; whatever the response holds, this neither hangs nor raises."""

    @abstractmethod
    def final_answer(self, response: str) -> str | None:
        """Return the answer that the response comes to, as it counts in a majority vote; None if it has none."""

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade responses one by one; a verifier that can grade several at a time does so here."""
        pairs = zip(prompts, responses, strict=True)
        return [Verdict(self(prompt, response), self.final_answer(response)) for prompt, response in pairs]

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:  # noqa: B027 - most have nothing to refuse
        """Check, before anything expensive starts, that responses to the prompts can be graded here.

        Args:
            key: the setting that holds this verifier, for the message.
            prompts: all prompts of the run.

        Raises:
            UserError: if they cannot.
        """
