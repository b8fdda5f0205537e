"""Grading by the tasks of reasoning-gym."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fireopd.errors import UserError, import_extra
from fireopd.types import Prompt
from fireopd.verifiers.base import Grade
from fireopd.verifiers.workers.worker_verifier import WorkerVerifier

__all__ = ["PROBLEM", "ReasoningGymVerifier"]

PROBLEM = ("task", "settings", "seed", "size", "index")
"""Keys of `Prompt.details` that identify a problem, set by `ReasoningGymPrompts`."""


@dataclass(frozen=True)
class ReasoningGymVerifier(WorkerVerifier):
    """Grades the text between `<answer>` and `</answer>` with the grader of the task.

    Some tasks give partial rewards for answers of the expected form. Answers are graded in worker processes. An answer
    that exceeds the time or memory limit or crashes the worker is incorrect.
    """

    module: ClassVar[str] = "fireopd.verifiers.workers.reasoning_gym_worker"

    def final_answer(self, response: str) -> str | None:
        """Return the text between the last pair of answer tags, or None."""
        before, tag, _ = response.rpartition("</answer>")
        _, opening, answer = before.rpartition("<answer>")
        return answer.strip() if tag and opening else None

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Grade]:
        """Return the grades of responses, computed in parallel; a response without an answer is incorrect."""
        answers = [self.final_answer(response) for response in responses]
        answered = [row for row, answer in enumerate(answers) if answer is not None]
        jobs = [(dict(prompts[row].details), answers[row]) for row in answered]
        rewards = dict(zip(answered, self.ask(jobs), strict=True))
        return [Grade(rewards.get(row) or 0.0, answer) for row, answer in enumerate(answers)]

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that all prompts come from reasoning-gym, that it is installed, and that a worker starts."""
        for prompt in prompts:
            if not all(name in prompt.details for name in PROBLEM):
                problem = f"the prompt {prompt.id} is not a problem of reasoning-gym"
                remedy = "use it with ReasoningGymPrompts, and another verifier for other prompts"
                raise UserError(key, type(self).__name__, problem, remedy)
        import_extra("reasoning_gym", "reasoning-gym", key, type(self).__name__)
        super().check(key, prompts)
