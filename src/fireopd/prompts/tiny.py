"""Prompts of the embedded tasks."""

from dataclasses import dataclass, field
from itertools import islice

from fireopd.prompts import tiny_tasks
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.verifiers import FinalAnswer, Verifier

__all__ = ["TinyPrompts"]


@dataclass(frozen=True)
class TinyPrompts(PromptSource):
    """Prompts of the embedded tasks `math` and `code`, drawn from a seeded generator.

    Validation uses held-out problems.
    """

    teachers: dict[str, str] = field(default_factory=lambda: {"math": "math", "code": "code"})
    """Name of the teacher of each task; the keys select the tasks."""
    num_training: int = 9600
    """Number of training prompts, split evenly between the tasks."""
    num_validation: int = 128
    """Number of validation prompts per task."""
    by_steps: bool = False
    """Report problems by number of steps: as `math_2` to `math_5` in place of `math`."""
    verifier: Verifier = field(default_factory=FinalAnswer)
    """Grades the responses."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for task in self.teachers:
            if task not in tiny_tasks.TASKS:
                raise ValueError(
                    f"teachers: unknown task {task!r}; the embedded tasks are {', '.join(tiny_tasks.TASKS)}"
                )
        if not self.teachers or self.num_training < 1 or self.num_validation < 0:
            raise ValueError("TinyPrompts needs a task, num_training of at least 1 and num_validation of at least 0")

    def training(self, seed: int) -> list[PromptText]:
        """Draw the training prompts, alternating between the tasks."""
        drawn = {task: tiny_tasks.problems(task, seed, held_out=False) for task in self.teachers}
        names = list(drawn)
        return [self._text(next(drawn[names[i % len(names)]])) for i in range(self.num_training)]

    def validation(self) -> list[PromptText]:
        """Draw the validation prompts from the held-out problems."""
        drawn = [islice(tiny_tasks.problems(task, 0, held_out=True), self.num_validation) for task in self.teachers]
        return [self._text(problem) for task in drawn for problem in task]

    def _text(self, problem: tiny_tasks.Problem) -> PromptText:
        messages = [{"role": "user", "content": problem.text}]
        place = f"{problem.task}:{problem.text}"
        teacher = self.teachers[problem.task]
        task = f"{problem.task}_{len(problem.steps)}" if self.by_steps else problem.task
        return PromptText(messages, teacher, task, problem.answer, place, solution=problem.solution)
