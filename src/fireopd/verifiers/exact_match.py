"""Grading by the text of the whole response."""

from dataclasses import dataclass

from fireopd.types import Prompt
from fireopd.verifiers.base import Verifier


@dataclass(frozen=True)
class ExactMatch(Verifier):
    """Right if the whole response is the reference answer, after what both are brought to."""

    ignore_blanks: bool = True
    """Take every run of blanks and line ends for one blank, and none at either end."""
    ignore_case: bool = False
    """Take capital letters for small ones."""

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 or 0; a prompt without a reference answer is never answered rightly."""
        return float(prompt.answer is not None and self.final_answer(response) == self.final_answer(prompt.answer))

    def final_answer(self, response: str) -> str:
        """Return the response as it is compared."""
        text = " ".join(response.split()) if self.ignore_blanks else response
        return text.casefold() if self.ignore_case else text
