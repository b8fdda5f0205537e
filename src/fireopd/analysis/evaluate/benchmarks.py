"""Benchmarks: problems, read from JSONL files or by name, and the prompts made from them."""

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

__all__ = ["KEY", "Benchmark", "PromptFormat", "distinct_benchmarks", "read_benchmark"]

ID_KEYS = ("task_id", "question_id", "id")
"""Keys of a row used as the id of its problem, in order of precedence; the default id is the line number."""
FORM = 'write {"problem": ..., "answer": ...} on each line'
"""Remedy for a file without problems or with other columns."""
KEY = "--benchmark"
"""Command-line option that names the benchmarks, for error messages."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Problems of a file or of a published benchmark, in order."""

    name: str
    """Published name, or file name without suffix."""
    problems: tuple[PromptText, ...]
    """Problems with ids of the form `<benchmark>:<id or line number>`, for example `math500:17`."""
    verifier: Verifier
    """Verifier that grades the responses."""

    @property
    def graded(self) -> bool:
        """True if the problems have reference answers."""
        return self.problems[0].answer is not None

    def first(self, count: int | None) -> "Benchmark":
        """Return the benchmark with its first `count` problems; None for all."""
        return replace(self, problems=self.problems[:count])


@dataclass(frozen=True)
class PromptFormat:
    """Format of the prompt made from a problem."""

    system: str | None = None
    """System message before the chat messages of a problem."""
    suffix: str | None = None
    """Line after the text of a problem."""
    chat_template_options: dict[str, Any] | None = None
    """Keyword arguments of the chat template."""

    def prompts(self, benchmark: Benchmark, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        """Return the tokenized prompts of a benchmark.

        Raises:
            UserError: if a problem has chat messages and the tokenizer has no chat template.
        """
        asked = [replace(problem, content=self.content(problem)) for problem in benchmark.problems]
        return tokenize(asked, tokenizer, self.chat_template_options or {}, KEY)

    def content(self, problem: PromptText) -> str | list[dict[str, str]]:
        """Return the text or chat messages of a problem, with system message and suffix."""
        end = "" if self.suffix is None else f"\n{self.suffix}"
        if isinstance(problem.content, str):
            return problem.content + end
        *before, last = problem.content
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *before, last | {"content": last["content"] + end}]


def distinct_benchmarks(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Return the benchmarks.

    Raises:
        UserError: if two of them have the same name.
    """
    found: dict[str, Benchmark] = {}
    for benchmark in benchmarks:
        if benchmark.name in found:
            remedy = "rename one of them: benchmarks are identified by name"
            raise UserError(KEY, benchmark.name, "another benchmark has the same name", remedy)
        found[benchmark.name] = benchmark
    return list(found.values())


def read_benchmark(path: Path, verifier: Verifier) -> Benchmark:
    """Read a benchmark from a JSONL file of objects with "problem" or "prompt", "answer", and an optional id.

    Raises:
        UserError: if the file cannot be read, is empty, has two problems with the same id, or if only some of its
            problems have an answer.
    """
    try:
        texts = JSONLPrompts(path, path, teacher="none", task=path.stem, verifier=verifier).validation()
    except UserError as error:
        remedy = FORM if "columns" in error.remedy else error.remedy  # a benchmark has no setting of its columns
        raise UserError(KEY, error.value, error.problem, remedy) from error
    if not texts:
        raise UserError(KEY, str(path), "no problems", FORM)
    rows = dict(read_jsonl(path, KEY).rows)
    problems: dict[str, PromptText] = {}
    for text in texts:
        own = next((rows[text.id][key] for key in ID_KEYS if key in rows[text.id]), None)
        name = f"{path.stem}:{Row(KEY, text.id, Columns(), {'id': own}).text('id') or text.id.rpartition(':')[2]}"
        if name in problems:
            raise UserError(KEY, text.id, f"another problem has the id {name}", "use a unique id for each problem")
        if (text.answer is None) != (texts[0].answer is None):
            problem = "some problems of the file have an answer and some have none"
            raise UserError(KEY, text.id, problem, "add an answer to all of them, or to none")
        problems[name] = replace(text, id=name, task=path.stem)
    return Benchmark(path.stem, tuple(problems.values()), verifier)
