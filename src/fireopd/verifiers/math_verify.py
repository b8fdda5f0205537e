"""Grading by mathematical equality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fireopd.types import Prompt
from fireopd.verifiers.base import Verdict
from fireopd.verifiers.workers.base import WorkedVerifier


@dataclass(frozen=True)
class MathVerify(WorkedVerifier):
    r"""Right if the last boxed answer, or else the last expression, equals the reference (package math-verify).

    Everything is read and compared in worker processes. A response that takes too long, too much memory, or the
    worker's life counts as wrong, and so does any where there is no reference.
    """

    module: ClassVar[str] = "fireopd.verifiers.workers.math_worker"

    def final_answer(self, response: str) -> str | None:
        r"""Return the expression as it is read, so that 1/2 and \frac{1}{2} are one vote; nothing is worked out."""
        return self._judge([None], [response])[0].answer

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade responses, several at a time."""
        return self._judge([prompt.answer for prompt in prompts], responses)

    def _judge(self, references: Sequence[str | None], responses: Sequence[str]) -> list[Verdict]:
        answers = self.ask(list(zip(references, responses, strict=True)))
        return [Verdict(0.0, None) if answer is None else Verdict(*answer) for answer in answers]
