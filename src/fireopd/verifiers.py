"""Verifiers: grade a response without a model. Entry-point group: `fireopd.verifiers`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from math_verify import parse, verify

from fireopd.tasks import ANSWER_MARKER
from fireopd.types import Prompt


class Verifier(ABC):
    """Grades a response."""

    @abstractmethod
    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return a grade in [0, 1]."""

    @abstractmethod
    def final_answer(self, response: str) -> str | None:
        """Return the answer that the response comes to, as it counts in a majority vote; None if it has none."""


@dataclass(frozen=True)
class FinalAnswer(Verifier):
    """Right if what follows the last marker is the reference answer, surrounding blanks aside."""

    marker: str = ANSWER_MARKER
    """Stands before the answer, for example `#` or `####`; empty to compare the whole response."""

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 or 0; a prompt without a reference answer is never answered rightly."""
        answer = self.final_answer(response)
        return float(answer is not None and prompt.answer is not None and answer == prompt.answer.strip())

    def final_answer(self, response: str) -> str | None:
        """Return what follows the last marker."""
        if not self.marker:
            return response.strip()
        _, marker, answer = response.rpartition(self.marker)
        return answer.strip() if marker else None


@dataclass(frozen=True)
class MathVerify(Verifier):
    r"""Right if the last mathematical expression, boxed or plain, equals the reference answer (package math-verify)."""

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 or 0; a prompt without a reference answer is never answered rightly."""
        if prompt.answer is None:
            return 0.0
        marked = "$" in prompt.answer or "\\boxed" in prompt.answer
        # Bare LaTeX is no mathematics to the parser, or only a part of it is: \sqrt{3} would have no value.
        reference = parse(prompt.answer if marked else f"\\boxed{{{prompt.answer}}}")
        return float(verify(reference, parse(response)))

    def final_answer(self, response: str) -> str | None:
        r"""Return the expression as it is read, so that 1/2 and \frac{1}{2} are one vote; nothing is worked out."""
        parsed = parse(response)
        return str(parsed[0]) if parsed else None
