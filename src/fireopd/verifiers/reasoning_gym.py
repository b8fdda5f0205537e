"""Grading as the tasks of reasoning-gym do."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.types import Prompt
from fireopd.verifiers.base import Verdict, Verifier
from fireopd.verifiers.workers import pool

SLACK = 10.0
"""Wall-clock seconds that a worker has for each second of `timeout`: it may have to wait for a core."""


@dataclass(frozen=True)
class ReasoningGymVerifier(Verifier):
    """Grades as the task itself does, the answer being what stands between `<answer>` and `</answer>`.

    Answers are graded in worker processes: one that takes too long, too much memory, or the worker's life is wrong.
    """

    timeout: float = 5.0
    """Seconds of computing time that one answer may take."""
    workers: int = 2
    """Answers that are graded at a time."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0, got {self.timeout}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return the task's grade; some tasks give part of it for answers of the right form."""
        return self.grade([prompt], [response])[0].reward

    def final_answer(self, response: str) -> str | None:
        """Return what stands between the last such tags."""
        before, tag, _ = response.rpartition("</answer>")
        _, opening, answer = before.rpartition("<answer>")
        return answer.strip() if tag and opening else None

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade responses, several at a time; one without an answer is wrong."""
        answers = [self.final_answer(response) for response in responses]
        asked = [row for row, answer in enumerate(answers) if answer is not None]
        jobs = [[(dict(prompts[row].details), answers[row])] for row in asked]
        workers = pool("fireopd.verifiers.reasoning_gym_worker", (str(self.timeout),), self.workers)
        found = dict(zip(asked, workers.ask_all(jobs, self.timeout * SLACK), strict=True))
        return [Verdict(found.get(row) or 0.0, answer) for row, answer in enumerate(answers)]
