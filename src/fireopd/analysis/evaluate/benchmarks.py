"""Benchmarks: JSONL files of problems, and how their problems are put to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.prompts import Columns, JSONLPrompts, PromptText
from fireopd.prompts.jsonl import read_jsonl
from fireopd.prompts.rows import Row
from fireopd.prompts.tokenization import tokenize
from fireopd.types import Prompt
from fireopd.verifiers import Verifier

ID_KEYS = ("task_id", "question_id", "id")
"""Keys of a row that can name its problem, the first that is there; else its line number does."""
KEY = "--benchmark"
"""The setting that benchmarks come from."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The problems of a file, in order."""

    name: str
    """That of the file, without its ending."""
    problems: tuple[PromptText, ...]
    """Each with the benchmark and the row's own id, or its line number, as id: `math500:17`."""
    verifier: Verifier
    """Grades the responses to all problems."""

    @property
    def graded(self) -> bool:
        """Whether there are reference answers."""
        return self.problems[0].answer is not None

    def first(self, count: int | None) -> "Benchmark":
        """Return the first problems, or all of them."""
        return replace(self, problems=self.problems[:count])


@dataclass(frozen=True)
class Asking:
    """How a problem becomes a prompt."""

    system: str | None = None
    """System message, before the chat messages of the problem."""
    suffix: str | None = None
    """A line after the text of the problem."""
    chat_template_options: dict[str, Any] | None = None
    """Passed to the chat template."""

    def prompts(self, benchmark: Benchmark, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        """Return the tokenized prompts of a benchmark.

        Raises:
            UserError: if there are chat messages and no chat template.
        """
        asked = [replace(problem, content=self.content(problem)) for problem in benchmark.problems]
        return tokenize(asked, tokenizer, self.chat_template_options or {}, KEY)

    def content(self, problem: PromptText) -> str | list[dict[str, str]]:
        """Return what is asked: the problem with system message and suffix."""
        end = "" if self.suffix is None else f"\n{self.suffix}"
        if isinstance(problem.content, str):
            return problem.content + end
        *before, last = problem.content
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *before, last | {"content": last["content"] + end}]


def read_benchmarks(paths: Sequence[Path], verifier: Verifier) -> list[Benchmark]:
    """Return the benchmarks of some files, whose names must differ, all graded by one verifier.

    Raises:
        UserError: if a file cannot be read, is empty, or has two problems of the same id.
    """
    found: dict[str, Benchmark] = {}
    for path in paths:
        benchmark = read_benchmark(path, verifier)
        if benchmark.name in found:
            remedy = "rename one of them: the name is what tells benchmarks apart"
            raise UserError(KEY, str(path), "another benchmark has the same name", remedy)
        found[benchmark.name] = benchmark
    return list(found.values())


def read_benchmark(path: Path, verifier: Verifier) -> Benchmark:
    """Return the benchmark of a file with an object a line: "problem" or "prompt", "answer", and an id if it has one.

    Raises:
        UserError: if it cannot be read, is empty, has two problems of the same id, or answers to some problems only.
    """
    try:
        texts = JSONLPrompts(path, path, teacher="none", task=path.stem, verifier=verifier).validation()
    except UserError as error:
        raise UserError(KEY, error.value, error.problem, error.remedy) from error
    if not texts:
        raise UserError(KEY, str(path), "no problems", 'write {"problem": ..., "answer": ...} on each line')
    rows = dict(read_jsonl(path, KEY).rows)
    problems: dict[str, PromptText] = {}
    for text in texts:
        own = next((rows[text.id][key] for key in ID_KEYS if key in rows[text.id]), None)
        name = f"{path.stem}:{Row(KEY, text.id, Columns(), {'id': own}).text('id') or text.id.rpartition(':')[2]}"
        if name in problems:
            raise UserError(KEY, text.id, f"another problem is called {name}", "give each an id of its own")
        if (text.answer is None) != (texts[0].answer is None):
            problem = "some problems of the file have an answer and some have none"
            raise UserError(KEY, text.id, problem, "give all of them one, or none")
        problems[name] = replace(text, id=name, task=path.stem)
    return Benchmark(path.stem, tuple(problems.values()), verifier)
