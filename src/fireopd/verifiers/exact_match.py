"""Comparison of the whole response with the reference answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.types import Prompt
from fireopd.verifiers.base import Verifier, check_references

__all__ = ["ExactMatch"]


@dataclass(frozen=True)
class ExactMatch(Verifier):
    """Correct if the normalized response equals the normalized reference answer."""

    ignore_blanks: bool = True
    """Collapse whitespace to single spaces, and strip it at both ends."""
    ignore_case: bool = False
    """Ignore the case of letters."""

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 for a correct response, else 0; without a reference answer, return 0."""
        reference = prompt.answer or ""
        return float(reference.strip() != "" and self.final_answer(response) == self.final_answer(reference))

    def final_answer(self, response: str) -> str:
        """Return the normalized response."""
        text = " ".join(response.split()) if self.ignore_blanks else response
        return text.casefold() if self.ignore_case else text

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that no reference answer is empty."""
        check_references(key, prompts)
