"""Comparison by mathematical equality (package math-verify)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fireopd.types import Prompt
from fireopd.verifiers.base import Grade, check_references
from fireopd.verifiers.workers.worker_verifier import WorkerVerifier

__all__ = ["MathVerify"]


@dataclass(frozen=True)
class MathVerify(WorkerVerifier):
    """Correct if the last boxed answer, or else the last expression, equals the reference mathematically.

    Responses are parsed and compared in worker processes. A response that exceeds the time or memory limit or crashes
    the worker is incorrect, and so is every response to a prompt without a reference answer.
    """

    module: ClassVar[str] = "fireopd.verifiers.workers.math_worker"

    def final_answer(self, response: str) -> str | None:
        r"""Return the parsed expression, so that 1/2 and \frac{1}{2} are one vote. It is not evaluated."""
        return self._grade([None], [response])[0].answer

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Grade]:
        """Return the grades of responses, computed in parallel."""
        return self._grade([prompt.answer for prompt in prompts], responses)

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that no reference answer is empty, and that a worker starts."""
        check_references(key, prompts)
        super().check(key, prompts)

    def _grade(self, references: Sequence[str | None], responses: Sequence[str]) -> list[Grade]:
        answers = self.ask(list(zip(references, responses, strict=True)))
        return [Grade(0.0, None) if answer is None else Grade(*answer) for answer in answers]
