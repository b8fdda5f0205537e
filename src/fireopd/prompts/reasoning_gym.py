"""Prompts of reasoning-gym's procedural tasks (arXiv 2505.24760; extra `reasoning-gym`)."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Any

from fireopd.errors import UserError, import_extra
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.verifiers import ReasoningGymVerifier, Verifier

__all__ = ["ReasoningGymPrompts"]

FIRST_HELD_OUT = 3 * 2**30
"""Seed of the first validation problem. reasoning-gym draws problem i with seed + i, all below 2**32."""
DRAWS_PER_PROMPT = 20
"""Maximum number of problems drawn per prompt, since a task may repeat its problems."""


@dataclass(frozen=True)
class ReasoningGymPrompts(PromptSource):
    """Tasks of reasoning-gym, drawn from seeded generators. Training and validation problems are disjoint."""

    tasks: dict[str, dict[str, Any]]
    """Settings of the tasks by reasoning-gym's names: `{chain_sum: {max_terms: 3}}`."""
    teacher: str
    """Teacher of all prompts."""
    num_training: int = 1000
    """Number of training prompts per task."""
    num_validation: int = 100
    """Number of validation prompts per task."""
    system: str | None = "Think step by step. Then write your final answer between <answer> and </answer>."
    """System message; null for none."""
    verifier: Verifier = field(default_factory=ReasoningGymVerifier)
    """Grades the responses."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.tasks:
            raise ValueError("tasks must not be empty, got {}")
        for name, least in {"num_training": 1, "num_validation": 0}.items():
            if vars(self)[name] < least:
                raise ValueError(f"{name} must be at least {least}, got {vars(self)[name]}")

    def training(self, seed: int) -> list[PromptText]:
        """Draw the training prompts."""
        held_out = {str(text.content) for text in self.validation()}
        first = random.Random(seed).randrange(2**31)  # below FIRST_HELD_OUT; seeds of other runs are far away
        return [text for task in self.tasks for text in self._draw(task, first, self.num_training, held_out)]

    def validation(self) -> list[PromptText]:
        """Draw the validation prompts."""
        return [text for task in self.tasks for text in self._draw(task, FIRST_HELD_OUT, self.num_validation, set())]

    def _draw(self, task: str, seed: int, number: int, held_out: set[str]) -> list[PromptText]:
        texts = list(islice(self._distinct(task, seed, number * DRAWS_PER_PROMPT, held_out), number))
        if len(texts) < number:
            problem = f"only {len(texts)} of {number} distinct prompts found in {number * DRAWS_PER_PROMPT} draws"
            remedy = "lower num_training or num_validation, or widen the settings of the task"
            raise UserError(f"data.prompts.tasks.{task}", self.tasks[task], problem, remedy)
        return texts

    def _distinct(self, task: str, seed: int, draws: int, held_out: set[str]) -> Iterator[PromptText]:
        problems, seen = self._problems(task, seed, draws), set(held_out)
        for index in range(draws):
            problem = problems[index]
            system = [] if self.system is None else [{"role": "system", "content": self.system}]
            content = [*system, {"role": "user", "content": problem["question"]}]
            if str(content) in seen:
                continue
            seen.add(str(content))
            answer = None if problem["answer"] is None else str(problem["answer"])
            # The verifier draws the problem again: a problem may contain values that are not JSON.
            details = {"task": task, "settings": self.tasks[task], "seed": seed, "size": draws, "index": index}
            yield PromptText(content, self.teacher, task, answer, f"{task}:{seed + index}", details=details)

    def _problems(self, task: str, seed: int, size: int) -> Any:
        key = f"data.prompts.tasks.{task}"
        gym = import_extra("reasoning_gym", "reasoning-gym", key, task)
        names = import_extra("reasoning_gym.factory", "reasoning-gym", key, task).DATASETS
        if task not in names:
            close = get_close_matches(task, names, n=3)
            remedy = f"did you mean {' or '.join(close)}?" if close else "look up the names in reasoning-gym's gallery"
            raise UserError(key, task, "unknown task of reasoning-gym", remedy)
        try:
            return gym.create_dataset(task, seed=seed, size=size, **self.tasks[task])
        except (AssertionError, TypeError, ValueError) as error:
            problem = f"reasoning-gym rejects these settings ({error})"
            raise UserError(key, self.tasks[task], problem, "fix the settings") from error
