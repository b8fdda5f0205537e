"""Prompt sources: where the prompts of training and validation come from. Entry-point group: `fireopd.prompts`."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fireopd import tasks
from fireopd.errors import UserError
from fireopd.verifiers import FinalAnswer, Verifier


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt before the tokenizer has seen it."""

    content: str | list[dict[str, str]]
    """Text to go on from as it is, or chat messages for the chat template."""
    teacher: str
    """Name of the teacher that judges the trajectory."""
    task: str
    """Name under which the row is reported."""
    answer: str | None
    """Reference answer, if there is one."""
    origin: str
    """Where it stands, for error messages: unique in its source, for example `train.jsonl:12`."""


class PromptSource(ABC):
    """Gives the prompts of a run."""

    verifier: Verifier
    """Grades the responses."""

    @abstractmethod
    def training(self, seed: int) -> list[PromptText]:
        """Return the training prompts; a source that draws them draws with this seed."""

    @abstractmethod
    def validation(self) -> list[PromptText]:
        """Return the validation prompts: the same whatever the run's seed. May be empty."""


@dataclass(frozen=True)
class TinyPrompts(PromptSource):
    """The embedded tasks `math` and `code`, drawn from a seeded generator, the held-out problems apart."""

    teachers: dict[str, str] = field(default_factory=lambda: {"math": "math", "code": "code"})
    """Name of the teacher that judges each task; the keys choose the tasks."""
    num_training: int = 9600
    """Training prompts, shared out evenly among the tasks."""
    num_validation: int = 128
    """Validation prompts of each task."""
    verifier: Verifier = field(default_factory=FinalAnswer)
    """Grades the responses."""

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        for task in self.teachers:
            if task not in tasks.TASKS:
                raise ValueError(f"teachers: no embedded task {task!r}; the tasks are {', '.join(tasks.TASKS)}")
        if not self.teachers or self.num_training < 1 or self.num_validation < 0:
            raise ValueError("TinyPrompts needs a task, num_training of at least 1 and num_validation of at least 0")

    def training(self, seed: int) -> list[PromptText]:
        """Draw the training prompts, the tasks taking turns."""
        drawn = {task: tasks.problems(task, seed, held_out=False) for task in self.teachers}
        names = list(drawn)
        return [self._text(next(drawn[names[i % len(names)]])) for i in range(self.num_training)]

    def validation(self) -> list[PromptText]:
        """Draw the validation prompts from the held-out problems."""
        drawn = [islice(tasks.problems(task, 0, held_out=True), self.num_validation) for task in self.teachers]
        return [self._text(problem) for task in drawn for problem in task]

    def _text(self, problem: tasks.Problem) -> PromptText:
        messages = [{"role": "user", "content": problem.text}]
        origin = f"{problem.task}:{problem.text}"
        return PromptText(messages, self.teachers[problem.task], problem.task, problem.answer, origin)


@dataclass(frozen=True)
class JSONLPrompts(PromptSource):
    """Prompts from JSONL files, one object a line.

    `{"problem": text, "answer": ...}` becomes a user message; `{"prompt": text or chat messages, "answer": ...}` is
    taken as it is. A row may name its own "teacher" and "task".
    """

    train: Path
    """File of the training prompts."""
    val: Path | None = None
    """File of the validation prompts; none to do without validation."""
    teacher: str | None = None
    """Teacher of the rows that name none."""
    task: str = "prompts"
    """Task of the rows that name none."""
    verifier: Verifier = field(default_factory=FinalAnswer)
    """Grades the responses."""

    def training(self, seed: int) -> list[PromptText]:
        """Read the training file; the seed has no part in it."""
        return list(self._read(self.train, "data.prompts.train"))

    def validation(self) -> list[PromptText]:
        """Read the validation file."""
        return [] if self.val is None else list(self._read(self.val, "data.prompts.val"))

    def _read(self, path: Path, key: str) -> Iterator[PromptText]:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(key, str(path), f"cannot be read ({error})", "give the path of a JSONL file") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield self._text(line, f"{path}:{number}", key)

    def _text(self, line: str, origin: str, key: str) -> PromptText:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            remedy = "write one JSON object a line"
            raise UserError(key, origin, f"not JSON ({error.msg} at column {error.colno})", remedy) from error
        content = self._content(row, origin, key)
        teacher = row.get("teacher", self.teacher)
        if not isinstance(teacher, str):
            remedy = 'add "teacher" to the row, or set data.prompts.teacher'
            raise UserError(key, origin, "the row names no teacher", remedy)
        answer = None if row.get("answer") is None else str(row["answer"])
        return PromptText(content, teacher, str(row.get("task", self.task)), answer, origin)

    def _content(self, row: Any, origin: str, key: str) -> str | list[dict[str, str]]:
        if isinstance(row, dict) and isinstance(row.get("problem"), str) and row["problem"]:
            return [{"role": "user", "content": row["problem"]}]
        content = row.get("prompt") if isinstance(row, dict) else None
        messages = isinstance(content, list) and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in content
        )
        if content and (isinstance(content, str) or messages):
            return content
        problem = 'the row has neither "problem" (text) nor "prompt" (text or chat messages)'
        raise UserError(key, origin, problem, 'write {"problem": ..., "answer": ...} on each line')
