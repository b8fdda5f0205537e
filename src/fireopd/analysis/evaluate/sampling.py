"""Sampling of benchmark responses: missing responses are sampled, graded and recorded batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.analysis.evaluate.benchmarks import KEY, Benchmark, PromptFormat
from fireopd.analysis.evaluate.output_folder import EvaluationFolder
from fireopd.analysis.evaluate.records import ProblemRecord, ResponseRecord, append_records, read_records
from fireopd.engines import RolloutEngine
from fireopd.engines.contract import checked_responses
from fireopd.engines.rollout import row_seed
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer, vocabulary_size
from fireopd.prompts.tokenization import check_lengths, longest_prompt
from fireopd.types import Prompt
from fireopd.verifiers import Verifier
from fireopd.verifiers.contract import checked_grades

__all__ = ["BenchmarkRun", "LoadedModel", "Sampler", "plan_runs", "sample_missing"]

ENGINE_KEY, VERIFIER_KEY = "--engine", "--verifier"
"""Command-line options that name engine and verifier, for error messages."""


@dataclass(frozen=True)
class LoadedModel:
    """Model under evaluation."""

    engine: RolloutEngine
    """Engine with the weights of the model."""
    tokenizer: PreTrainedTokenizerBase
    """Tokenizer of the model."""
    vocabulary: int
    """Number of outputs of the model."""


@dataclass(frozen=True)
class Sampler:
    """Sampling of records. A response depends only on problem, seed and index, not on the batch."""

    responses: int
    """Responses per problem."""
    seed: int
    """Seed of all responses."""

    def records(self, model: LoadedModel, prompts: Sequence[Prompt], verifier: Verifier) -> list[ProblemRecord]:
        """Sample and grade the responses to a batch of prompts; return their records.

        Raises:
            ContractError: if the responses of the engine, or the grades of the verifier, are invalid.
        """
        rows = [prompt for prompt in prompts for _ in range(self.responses)]
        seeds = [row_seed(self.seed, 0, prompt.id, index) for prompt in prompts for index in range(self.responses)]
        sampled = model.engine.generate(rows, seeds)
        written = checked_responses(model.engine, sampled, rows, model.vocabulary, ENGINE_KEY)
        texts = [str(model.tokenizer.decode(list(r.tokens), skip_special_tokens=True)) for r in written]
        judged = checked_grades(VERIFIER_KEY, verifier, verifier.grade(rows, texts), rows)
        found = [
            ResponseRecord(
                text,
                len(response.tokens),
                response.finished,
                None if prompt.answer is None else verdict.reward,
                verdict.answer,
                seed,
            )
            for prompt, response, text, verdict, seed in zip(rows, written, texts, judged, seeds, strict=True)
        ]
        each = [tuple(found[start : start + self.responses]) for start in range(0, len(found), self.responses)]
        return [ProblemRecord(p.id, p.content, p.answer, own) for p, own in zip(prompts, each, strict=True)]


@dataclass(frozen=True)
class BenchmarkRun:
    """Responses of one model to one benchmark, possibly incomplete."""

    model: str
    """Label of the model."""
    benchmark: Benchmark
    """Benchmark."""
    prompts: Sequence[Prompt]
    """Tokenized prompts of the benchmark."""
    path: Path
    """File of the records."""

    def records(self) -> list[ProblemRecord]:
        """Return the existing records in the order of the problems.

        Raises:
            UserError: if the file contains a different problem with the same id.
        """
        there = read_records(self.path)
        for prompt in self.prompts:
            record = there.get(prompt.id)
            if record and (record.problem, record.answer) != (prompt.content, prompt.answer):
                problem = f"it differs from the problem with this id in {self.path}"
                raise UserError(KEY, prompt.id, problem, "restore the benchmark file, or use another folder")
        return [there[prompt.id] for prompt in self.prompts if prompt.id in there]

    def missing(self) -> list[Prompt]:
        """Return the prompts without a record."""
        there = {record.id for record in self.records()}
        return [prompt for prompt in self.prompts if prompt.id not in there]

    def fill(self, model: LoadedModel, sampler: Sampler, batch_size: int) -> Iterator[int]:
        """Sample the missing responses; yield the number of problems after each recorded batch."""
        missing = self.missing()
        for start in range(0, len(missing), batch_size):
            records = sampler.records(model, missing[start : start + batch_size], self.benchmark.verifier)
            append_records(self.path, records)
            yield len(records)


def plan_runs(
    models: Mapping[str, str],
    benchmarks: Sequence[Benchmark],
    prompt_format: PromptFormat,
    engine: RolloutEngine,
    folder: EvaluationFolder,
) -> list[BenchmarkRun]:
    """Return the runs of all models and benchmarks, checked without loading a model.

    Args:
        models: model names by label.
        benchmarks: benchmarks.
        prompt_format: format of the prompts.
        engine: engine that samples the responses.
        folder: output folder.

    Raises:
        UserError: if a model does not exist, a prompt does not fit into its context, or a check of the engine or the
            verifier fails.
    """
    runs = []
    for label, model in models.items():
        tokenizer = load_tokenizer(model, "MODEL")
        engine.check(ENGINE_KEY, model)
        for benchmark in benchmarks:
            prompts = prompt_format.prompts(benchmark, tokenizer)
            limit = longest_prompt(model, engine.max_response_length, engine.longest_trajectory, "MODEL")
            check_lengths(
                prompts, limit, engine.max_response_length, KEY, "shorten the prompt, or --max_response_length"
            )
            if benchmark.graded:
                benchmark.verifier.check(VERIFIER_KEY, prompts)
            runs.append(BenchmarkRun(label, benchmark, prompts, folder.responses(label, benchmark.name)))
    return runs


def sample_missing(
    runs: Sequence[BenchmarkRun],
    models: Mapping[str, str],
    engine: RolloutEngine,
    sampler: Sampler,
    batch_size: int,
    console: Console,
) -> None:
    """Sample all missing responses of every model; a model without missing responses is not loaded."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        total, done = sum(len(own.prompts) for own in runs), sum(len(own.records()) for own in runs)
        bar = progress.add_task("Evaluating", total=total, completed=done)
        for label, model in models.items():
            missing = [own for own in runs if own.model == label and own.missing()]
            if not missing:
                continue
            progress.update(bar, description=f"{label}: loading")
            own_engine = replace(engine)
            own_engine.expect_prompts(max(len(prompt.tokens) for own in missing for prompt in own.prompts))
            own_engine.setup(model, device)
            loaded = LoadedModel(own_engine, load_tokenizer(model, "MODEL"), vocabulary_size(model, "MODEL"))
            for part in missing:
                progress.update(bar, description=f"{label} on {part.benchmark.name}")
                for count in part.fill(loaded, sampler, batch_size):
                    progress.advance(bar, count)
            own_engine.close()
