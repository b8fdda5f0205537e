"""`fireopd evaluate MODEL ... --benchmark FILE ... --out FOLDER`: models on benchmarks, side by side.

A MODEL is a Hugging Face folder, such as an exported student, a hub name, or an embedded model; NAME=MODEL gives it a
name. The first is what the others are compared with. A benchmark is a JSONL file of {"problem" or "prompt", "answer"}
rows. Every response is written down as it comes: the same command goes on where it was stopped.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from jsonargparse import Namespace
from rich.console import Console

from fireopd.analysis.evaluate.benchmarks import KEY, Asking, Benchmark, read_benchmarks
from fireopd.analysis.evaluate.export_formats import Export, export
from fireopd.analysis.evaluate.output_folder import EvaluationFolder, slug
from fireopd.analysis.evaluate.records import ProblemRecord
from fireopd.analysis.evaluate.report import tables, write_report
from fireopd.analysis.evaluate.sampling import BenchmarkRun, Sampler, answer, plan
from fireopd.analysis.evaluate.summary import summarise
from fireopd.atomic_files import lock, make_folder
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.parser import Parser, instantiate
from fireopd.engines import RolloutEngine
from fireopd.errors import UserError
from fireopd.verifiers import MathVerify, Verifier

SAMPLING = ("temperature", "top_p", "top_k", "max_response_length")
"""Settings of engines that are settings of the evaluation."""
NOT_OF_RESPONSES = ("config", "models", "benchmark", "out", "limit", "k", "export", "batch_size")
"""Settings of the evaluation that change nothing in a response."""
OF_THE_MACHINE = frozenset(
    {"batch_size", "memory_fraction", "kv_cache_gib", "max_model_length", "tensor_parallel_size", "eager", "sleep"}
)
"""Settings of engines that change nothing in a response."""
SHOWN = ("responses", *SAMPLING, "seed", "system", "suffix", "chat_template_options")
"""Settings that stand above the table."""


def run(arguments: Sequence[str]) -> None:
    """Evaluate models."""
    load_plugins()
    parser = _parser()
    given = parser.parse_args(list(arguments))
    settings = instantiate(parser, given)
    engine = _engine(settings)
    models = _labelled(settings.models)
    whole = read_benchmarks(settings.benchmark, settings.verifier)
    benchmarks = [benchmark.first(settings.limit) for benchmark in whole]
    _check(settings, benchmarks)
    folder = EvaluationFolder(settings.out)
    asking = Asking(settings.system, settings.suffix, settings.chat_template_options)
    sampler = Sampler(settings.responses, settings.seed)
    runs = plan(models, benchmarks, asking, engine, folder)
    console = Console()
    with _locked(folder.path):
        folder.begin(_of_responses(given), models)
        try:
            answer(runs, models, engine, sampler, settings.batch_size, console)
        except KeyboardInterrupt:
            console.print("Stopped. The same command goes on where it was.")
            sys.exit(130)
        _report(settings, models, runs, folder, console)


def _parser() -> Parser:
    parser = Parser(prog="fireopd evaluate", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file of any of these settings; may be repeated")
    parser.add_argument("models", nargs="+", type=str, metavar="MODEL", help="what is evaluated; NAME=MODEL names it")
    parser.add_argument("--benchmark", nargs="+", type=Path, required=True, metavar="FILE", help="JSONL of problems")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where everything goes")
    parser.add_argument("--limit", type=int | None, default=None, help="problems of each benchmark, from the first")
    parser.add_argument("--responses", type=int, default=4, help="to each problem: the n of avg@n")
    parser.add_argument("--k", nargs="+", type=int, help="of pass@k; 2, 4, 8 and so on up to --responses if not given")
    parser.add_argument("--temperature", type=float, default=1.0, help="divides the logits; 0 for the likeliest token")
    parser.add_argument("--top_p", type=float, default=1.0, help="probability of the tokens that are drawn from")
    parser.add_argument("--top_k", type=int, default=0, help="number of tokens that are drawn from, 0 for all")
    parser.add_argument("--max_response_length", type=int, default=1024, help="tokens; longer responses are cut")
    parser.add_argument("--seed", type=int, default=0, help="of all responses")
    parser.add_argument("--system", type=str | None, default=None, help="system message before each problem")
    parser.add_argument("--suffix", type=str | None, default=None, help="a line after the text of each problem")
    parser.add_argument(
        "--chat_template_options", type=dict[str, Any], default={}, help="for example {enable_thinking: false}"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="problems that are answered, then written, together")
    parser.add_argument("--verifier", type=Verifier, default=MathVerify(), help="grades the responses")
    parser.add_argument("--export", type=Export | None, default=None, help="write programs for another evaluator, too")
    default = {"class_path": "HFEngine"}
    hidden = {*SAMPLING, "max_probe_gap"}
    parser.add_subclass_arguments(RolloutEngine, "engine", skip=hidden, default=default, help="samples the responses")
    return parser


def _engine(settings: Namespace) -> RolloutEngine:
    """Return the engine with the settings of the evaluation."""
    try:
        engine = replace(settings.engine, **{name: settings[name] for name in SAMPLING})
    except ValueError as error:
        name, _, problem = str(error).partition(" ")
        raise UserError(f"--{name}", settings[name], problem, "mend it") from error
    if type(engine.for_another_model()) is not type(engine):
        problem = "it samples from the model that its servers hold, whatever it is"
        raise UserError("--engine", type(engine).__name__, problem, "use HFEngine or VLLMEngine")
    return engine


def _labelled(names: Sequence[str]) -> dict[str, str]:
    """Return models by label: NAME of NAME=MODEL, else the model as it was written."""
    found: dict[str, str] = {}
    for name in names:
        label, named, model = (name, "", "") if Path(name).is_dir() else name.partition("=")
        if slug(label) in map(slug, found):
            raise UserError("MODEL", name, "two models of the same name", "name them apart: NAME=MODEL")
        if not slug(label) or (named and not model):
            raise UserError("MODEL", name, "no name, or no model", "give NAME=MODEL, or MODEL")
        found[label] = model if named else label
    return found


def _check(settings: Namespace, benchmarks: Sequence[Benchmark]) -> None:
    counts = {name: settings[name] for name in ("responses", "batch_size", "limit") if settings[name] is not None}
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name}", value, "less than one", "give 1 or more")
    if settings.temperature == 0 and settings.responses > 1:
        problem = "at temperature 0 all responses to a problem are the same"
        raise UserError("--responses", settings.responses, problem, "give --responses 1, or a temperature")
    for k in settings.k or ():
        if not 1 <= k <= settings.responses:
            problem = f"pass@{k} of {settings.responses} responses cannot be estimated"
            raise UserError("--k", k, problem, "give numbers from 1 to --responses")
    if settings.export is None and not all(benchmark.graded for benchmark in benchmarks):
        name = next(benchmark.name for benchmark in benchmarks if not benchmark.graded)
        remedy = 'add "answer" to its rows; programs for another evaluator are written with --export'
        raise UserError(KEY, name, "its problems have no answers", remedy)


def _of_responses(given: Namespace) -> dict[str, Any]:
    """Return the settings, flat, on which responses depend."""
    flat = vars(given.as_flat())
    return {
        key.replace(".init_args", ""): value
        for key, value in flat.items()
        if key not in NOT_OF_RESPONSES and not (key.startswith("engine.") and key.rpartition(".")[2] in OF_THE_MACHINE)
    }


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    make_folder(path)
    try:
        file = lock(path)
    except BlockingIOError as error:
        problem = "another evaluation is writing into this folder"
        raise UserError("--out", str(path), problem, "wait for it, or give another one") from error
    with file:
        yield file


def _report(
    settings: Namespace,
    models: dict[str, str],
    runs: Sequence[BenchmarkRun],
    folder: EvaluationFolder,
    console: Console,
) -> None:
    """Print the tables, and write everything."""
    answers: dict[str, dict[str, list[ProblemRecord]]] = {}
    for own in runs:
        answers.setdefault(own.benchmark.name, {})[own.model] = own.records()
    powers = [2**i for i in range(1, settings.responses.bit_length())]
    summary = summarise(answers, settings.k or powers)
    facts: dict[str, Any] = {
        "models": models,
        "engine": type(settings.engine).__name__,
        "verifier": str(settings.verifier),
    }
    facts |= {name: settings[name] for name in SHOWN if settings[name] is not None}
    for table in tables(summary):
        console.print(table.to_rich())
    write_report(folder.path, summary, facts)
    if settings.export is not None:
        for own in runs:
            path = export(settings.export, folder, own.model, own.benchmark.name, own.records())
            console.print(f"for {settings.export}: {path}", highlight=False, soft_wrap=True)
    text = f"{folder.path}/responses holds every response, summary.json and table.md what they come to."
    console.print(text, highlight=False, soft_wrap=True)
