"""Procedural tasks of reasoning-gym (arXiv 2505.24760); the package comes as an extra."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Any

from fireopd.errors import UserError, import_extra
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.verifiers import ReasoningGymVerifier, Verifier

FIRST_HELD_OUT = 3 * 2**30
"""Seed of the first validation problem; reasoning-gym draws problem i with the seed plus i, all of them below 2**32."""
PATIENCE = 20
"""Problems drawn for each that is wanted, before a task counts as having no more."""


@dataclass(frozen=True)
class ReasoningGymPrompts(PromptSource):
    """Tasks of reasoning-gym, drawn from seeded generators, no problem of validation among those of training."""

    tasks: dict[str, dict[str, Any]]
    """Tasks by the names that reasoning-gym has for them, each with its own settings: `{chain_sum: {max_terms: 3}}`."""
    teacher: str
    """Teacher of all rows."""
    num_training: int = 1000
    """Training prompts of each task."""
    num_validation: int = 100
    """Validation prompts of each task."""
    system: str | None = "Think step by step. Then write your final answer between <answer> and </answer>."
    """System message; none for problems alone."""
    verifier: Verifier = field(default_factory=ReasoningGymVerifier)
    """Grades the responses."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.tasks:
            raise ValueError("tasks must not be empty, got {}")
        for name, least in {"num_training": 1, "num_validation": 0}.items():
            if vars(self)[name] < least:
                raise ValueError(f"{name} must be at least {least}, got {vars(self)[name]}")

    def training(self, seed: int) -> list[PromptText]:
        """Draw the training prompts."""
        apart = {str(text.content) for text in self.validation()}
        first = random.Random(seed).randrange(2**31)  # far from that of the next seed, and from FIRST_HELD_OUT
        return [text for task in self.tasks for text in self._draw(task, first, self.num_training, apart)]

    def validation(self) -> list[PromptText]:
        """Draw the validation prompts."""
        return [text for task in self.tasks for text in self._draw(task, FIRST_HELD_OUT, self.num_validation, set())]

    def _draw(self, task: str, seed: int, number: int, apart: set[str]) -> list[PromptText]:
        texts = list(islice(self._distinct(task, seed, number * PATIENCE, apart), number))
        if len(texts) < number:
            problem = f"{number} different prompts are wanted, and it has hardly more than {len(texts)}"
            remedy = "lower num_training or num_validation, or widen the task's settings"
            raise UserError(f"data.prompts.tasks.{task}", self.tasks[task], problem, remedy)
        return texts

    def _distinct(self, task: str, seed: int, patience: int, apart: set[str]) -> Iterator[PromptText]:
        problems, seen = self._problems(task, seed, patience), set(apart)
        for index in range(patience):
            problem = problems[index]
            opening = [] if self.system is None else [{"role": "system", "content": self.system}]
            content = [*opening, {"role": "user", "content": problem["question"]}]
            if str(content) in seen:
                continue
            seen.add(str(content))
            answer = None if problem["answer"] is None else str(problem["answer"])
            # What draws the problem once more, for the verifier: it is more than an answer and less than JSON.
            details = {"task": task, "settings": self.tasks[task], "seed": seed, "size": patience, "index": index}
            yield PromptText(content, self.teacher, task, answer, f"{task}:{seed + index}", details=details)

    def _problems(self, task: str, seed: int, size: int) -> Any:
        key = f"data.prompts.tasks.{task}"
        gym = import_extra("reasoning_gym", "reasoning-gym", key, task)
        names = import_extra("reasoning_gym.factory", "reasoning-gym", key, task).DATASETS
        if task not in names:
            close = get_close_matches(task, names, n=3)
            remedy = f"did you mean {' or '.join(close)}?" if close else "see reasoning-gym's gallery for the names"
            raise UserError(key, task, "reasoning-gym has no such task", remedy)
        try:
            return gym.create_dataset(task, seed=seed, size=size, **self.tasks[task])
        except (AssertionError, TypeError, ValueError) as error:
            problem = f"reasoning-gym refuses these settings ({error})"
            raise UserError(key, self.tasks[task], problem, "mend them") from error
