"""Benchmarks by name: from an installed package, or from a Hugging Face dataset at a pinned revision (extra `data`)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from fireopd.analysis.evaluate.benchmarks import KEY, Benchmark
from fireopd.analysis.evaluate.published_formats import Row, human_eval, live_code_bench, math_problem, mbpp
from fireopd.errors import UserError, import_extra
from fireopd.prompts import PromptText
from fireopd.prompts.arrow import arrow_problem
from fireopd.verifiers import MathVerify, UnitTests, Verifier

__all__ = ["NAMED", "PublishedBenchmark", "read_named", "unknown_name"]


@dataclass(frozen=True)
class PublishedBenchmark:
    """Published benchmark."""

    dataset: str
    """Name of the dataset on the hub."""
    revision: str
    """Commit of the dataset."""
    problems: int
    """Number of problems."""
    prompt: Callable[[str, int, Row], PromptText]
    """Returns the prompt of a row, from the name of the benchmark, the number of the row from 1, and the row."""
    verifier: Verifier = field(default_factory=MathVerify)
    """Verifier that grades the responses."""
    split: str = "test"
    """Split of the dataset."""
    subset: str | None = None
    """Subset of the dataset."""
    files: tuple[str, ...] = ()
    """JSONL files of a dataset without a standard layout."""
    package: str = ""
    """Module of an installed package whose `read_problems` returns the rows by id; it takes precedence."""

    def rows(self, name: str) -> list[Row]:
        """Return the rows.

        Args:
            name: name of the benchmark, for error messages.

        Raises:
            UserError: if neither package nor dataset can be read, or the number of problems is another one.
        """
        try:
            rows = list(import_module(self.package).read_problems().values()) if self.package else None
        except ModuleNotFoundError:
            rows = None
        rows = self._dataset_rows(name) if rows is None else rows
        if len(rows) != self.problems:
            problem = f"{len(rows)} problems were found, and the published benchmark has {self.problems}"
            raise UserError(KEY, name, problem, "clear the cache of datasets, or update the package")
        return rows

    def _dataset_rows(self, name: str) -> list[Row]:
        datasets = import_extra("datasets", "data", KEY, name)
        try:
            return list(self._load(datasets))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            problem = f"the dataset {self.dataset} cannot be loaded ({arrow_problem(error)})"
            install = f", or install the package {self.package.partition('.')[0]}" if self.package else ""
            remedy = f"connect to the hub, or to its cache with HF_HOME{install}, or give a JSONL file of problems"
            raise UserError(KEY, name, problem, remedy) from error

    def _load(self, datasets: Any) -> Iterable[Row]:
        if not self.files:
            return datasets.load_dataset(self.dataset, self.subset, split=self.split, revision=self.revision)
        places = [f"hf://datasets/{self.dataset}@{self.revision}/{file}" for file in self.files]
        return datasets.load_dataset("json", data_files=places, split="train")


LCB_FILES = ("test.jsonl", *(f"test{number}.jsonl" for number in range(2, 7)))
"""Files of the release v6 of LiveCodeBench."""
NAMED = {
    "humaneval": PublishedBenchmark(
        "openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", 164, human_eval, UnitTests(),
        package="human_eval.data",
    ),
    "mbpp": PublishedBenchmark(
        "google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c", 500, mbpp, UnitTests(),
        subset="full",
    ),
    "math500": PublishedBenchmark(
        "HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", 500,
        math_problem("problem", "answer", "unique_id"),
    ),
    "aime24": PublishedBenchmark(
        "HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", 30, math_problem("problem", "answer"),
        split="train",
    ),
    "aime25": PublishedBenchmark(
        "math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", 30, math_problem("problem", "answer"),
    ),
    "hmmt": PublishedBenchmark(
        "MathArena/hmmt_feb_2025", "6fdc4277120810ff75aa22d2d5489b91f7a262a1", 30, math_problem("problem", "answer"),
        split="train",
    ),
    "amc23": PublishedBenchmark(
        "math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", 40, math_problem("question", "answer"),
    ),
    "minerva": PublishedBenchmark(
        "math-ai/minervamath", "ee46ddc498933b1977577953250ca5c66be64f96", 272, math_problem("question", "answer"),
    ),
    "olympiadbench": PublishedBenchmark(
        "math-ai/olympiadbench", "4faaf1e6ec17d11a4218a9bf4c049ecaf954dd84", 674,
        math_problem("question", "final_answer"),
    ),
    "livecodebench": PublishedBenchmark(
        "livecodebench/code_generation_lite", "0fe84c3912ea0c4d4a78037083943e8f0c4dd505", 1055, live_code_bench,
        UnitTests(cpu_seconds=6, wall_seconds=300.0, memory_mib=4096), files=LCB_FILES,
    ),
}  # fmt: skip
"""Published benchmarks by name."""


def read_named(name: str) -> Benchmark:
    """Return a published benchmark.

    Raises:
        UserError: if its rows cannot be read, or lack a column.
    """
    published = NAMED[name]
    try:
        problems = [published.prompt(name, number, row) for number, row in enumerate(published.rows(name), start=1)]
    except KeyError as error:
        problem = f"the dataset {published.dataset} has no column {error}"
        raise UserError(KEY, name, problem, f"use its revision {published.revision}") from error
    return Benchmark(name, tuple(problems), published.verifier)


def unknown_name(name: str) -> UserError:
    """Return the error of a benchmark that is neither a file nor a name."""
    close = get_close_matches(name, NAMED, n=1)
    hint = f"write {close[0]}" if close else f"give a JSONL file, or one of {', '.join(NAMED)}"
    return UserError(KEY, name, "neither a file nor a known benchmark", hint)
