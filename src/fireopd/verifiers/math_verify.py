"""Grading by mathematical equality."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.types import Prompt
from fireopd.verifiers.base import Verdict, Verifier
from fireopd.verifiers.workers import pool

SLACK = 10.0
"""Wall-clock seconds that a worker has for each second of `timeout`: it may have to wait for a core."""


@dataclass(frozen=True)
class MathVerify(Verifier):
    r"""Right if the last boxed answer, or else the last expression, equals the reference (package math-verify).

    Everything is read and compared in worker processes. A response that takes too long, too much memory, or the
    worker's life counts as wrong.
    """

    timeout: float = 5.0
    """Seconds of computing time that one response may take."""
    workers: int = 2
    """Responses that are graded at a time; each worker takes some 100 MiB."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0, got {self.timeout}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 or 0; a prompt without a reference answer is never answered rightly."""
        return self.grade([prompt], [response])[0].reward

    def final_answer(self, response: str) -> str | None:
        r"""Return the expression as it is read, so that 1/2 and \frac{1}{2} are one vote; nothing is worked out."""
        return self._judge([None], [response])[0].answer

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade responses, several at a time."""
        return self._judge([prompt.answer for prompt in prompts], responses)

    def _judge(self, references: Sequence[str | None], responses: Sequence[str]) -> list[Verdict]:
        workers = pool("fireopd.verifiers.math_worker", (str(self.timeout),), self.workers)
        jobs = [[pair] for pair in zip(references, responses, strict=True)]
        answers = workers.ask_all(jobs, self.timeout * SLACK)
        return [Verdict(0.0, None) if answer is None else Verdict(*answer) for answer in answers]
