"""Grading by the text that stands after a marker."""

from dataclasses import dataclass

from fireopd.types import Prompt
from fireopd.verifiers.base import Verifier


@dataclass(frozen=True)
class FinalAnswer(Verifier):
    """Right if what follows the last marker is the reference answer, surrounding blanks aside."""

    marker: str = "#"
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
