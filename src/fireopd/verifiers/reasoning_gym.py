"""Grading as the tasks of reasoning-gym do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fireopd.errors import UserError, import_extra
from fireopd.types import Prompt
from fireopd.verifiers.base import Verdict
from fireopd.verifiers.workers.base import WorkedVerifier

PROBLEM = ("task", "settings", "seed", "size", "index")
"""What draws a problem once more; `ReasoningGymPrompts` gives it with each prompt."""


@dataclass(frozen=True)
class ReasoningGymVerifier(WorkedVerifier):
    """Grades as the task itself does, the answer being what stands between `<answer>` and `</answer>`.

    Some tasks give part of the grade for answers of the right form. Answers are graded in worker processes: one that
    takes too long, too much memory, or the worker's life is wrong.
    """

    module: ClassVar[str] = "fireopd.verifiers.workers.reasoning_gym_worker"

    def final_answer(self, response: str) -> str | None:
        """Return what stands between the last such tags."""
        before, tag, _ = response.rpartition("</answer>")
        _, opening, answer = before.rpartition("<answer>")
        return answer.strip() if tag and opening else None

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade responses, several at a time; one without an answer is wrong."""
        answers = [self.final_answer(response) for response in responses]
        asked = [row for row, answer in enumerate(answers) if answer is not None]
        found = dict(zip(asked, self.ask([(dict(prompts[row].details), answers[row]) for row in asked]), strict=True))
        return [Verdict(found.get(row) or 0.0, answer) for row, answer in enumerate(answers)]

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that all prompts are reasoning-gym's, that it is installed, and that a worker starts."""
        for prompt in prompts:
            if not all(name in prompt.details for name in PROBLEM):
                problem = f"the prompt {prompt.id} does not say which problem of reasoning-gym it is"
                remedy = "grade with it what ReasoningGymPrompts draws, and other prompts with another verifier"
                raise UserError(key, type(self).__name__, problem, remedy)
        import_extra("reasoning_gym", "reasoning-gym", key, type(self).__name__)
        super().check(key, prompts)
