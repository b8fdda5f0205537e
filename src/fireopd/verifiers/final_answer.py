"""Comparison of the text after a marker with the reference answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.types import Prompt
from fireopd.verifiers.base import Verifier, check_references

__all__ = ["FinalAnswer"]


@dataclass(frozen=True)
class FinalAnswer(Verifier):
    """Correct if the text after the last marker equals the reference answer, apart from surrounding whitespace."""

    marker: str = "#"
    """Marker before the answer, for example `#` or `####`; empty to compare the whole response."""

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 for a correct response, else 0; without a reference answer, return 0."""
        reference = (prompt.answer or "").strip()
        return float(reference != "" and self.final_answer(response) == reference)

    def final_answer(self, response: str) -> str | None:
        """Return the text after the last marker, or None."""
        if not self.marker:
            return response.strip()
        _, marker, answer = response.rpartition(self.marker)
        return answer.strip() if marker else None

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that no reference answer is empty."""
        check_references(key, prompts)
