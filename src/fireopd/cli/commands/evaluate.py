"""`fireopd evaluate MODEL ... --benchmark NAME|FILE ... --out FOLDER`: evaluate models on benchmarks.

A MODEL is a Hugging Face model folder (such as an exported student), a hub name, or an embedded model; NAME=MODEL sets
its label. The other models are compared with the first one. A benchmark is the name of a published one (humaneval,
mbpp, math500, aime24, aime25, hmmt, amc23, minerva, olympiadbench, livecodebench), or a JSONL file with rows of
"problem" or "prompt", and "answer". Responses are recorded batch by batch: repeat the command to resume a stopped
evaluation.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from fireopd.analysis.evaluate.benchmarks import KEY, Benchmark, PromptFormat, distinct_benchmarks, read_benchmark
from fireopd.analysis.evaluate.export_formats import Export, export
from fireopd.analysis.evaluate.named_benchmarks import NAMED, read_named, unknown_name
from fireopd.analysis.evaluate.output_folder import EvaluationFolder, slug
from fireopd.analysis.evaluate.records import ProblemRecord
from fireopd.analysis.evaluate.report import tables, write_report
from fireopd.analysis.evaluate.sampling import BenchmarkRun, Sampler, plan_runs, sample_missing
from fireopd.analysis.evaluate.summary import summarise
from fireopd.atomic_files import locked, make_folder, writing
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.instantiation import instantiate
from fireopd.cli.parser import Parser
from fireopd.engines import RolloutEngine
from fireopd.errors import UserError
from fireopd.verifiers import MathVerify, Verifier

__all__ = ["run"]

SAMPLING = ("temperature", "top_p", "top_k", "max_response_length")
"""Settings of an engine that are options of the evaluation."""
UNRELATED = ("config", "models", "benchmark", "out", "limit", "k", "export", "batch_size")
"""Options of the evaluation that do not affect the responses."""
ENGINE_UNRELATED = frozenset(
    {"batch_size", "memory_fraction", "kv_cache_gib", "max_model_length", "tensor_parallel_size", "eager", "sleep"}
)
"""Settings of an engine that do not affect the responses."""
SHOWN = ("responses", *SAMPLING, "seed", "system", "suffix", "chat_template_options")
"""Settings listed in the report."""


def run(arguments: Sequence[str]) -> None:
    """Evaluate models."""
    load_plugins()
    parser = _parser()
    given = parser.parse_args(list(arguments))
    settings = instantiate(parser, given)
    engine = _engine(settings)
    models = _labelled(settings.models)
    found = _read_benchmarks(settings.benchmark, settings.verifier)
    benchmarks = [benchmark.first(settings.limit) for benchmark in found]
    _check(settings, benchmarks)
    folder = EvaluationFolder(settings.out)
    prompt_format = PromptFormat(settings.system, settings.suffix, settings.chat_template_options)
    sampler = Sampler(settings.responses, settings.seed)
    runs = plan_runs(models, benchmarks, prompt_format, engine, folder)
    console = Console()
    make_folder(folder.path)
    problem, remedy = "another evaluation is using this folder", "wait for it, or use another folder"
    with locked("--out", folder.path, problem, remedy):
        folder.begin(_response_settings(given), models)
        try:
            sample_missing(runs, models, engine, sampler, settings.batch_size, console)
        except KeyboardInterrupt:
            console.print("Stopped. Repeat the command to resume.")
            sys.exit(130)
        _report(settings, models, runs, folder, console)


def _parser() -> Parser:
    parser = Parser(prog="fireopd evaluate", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of these options; may be repeated")
    parser.add_argument(
        "models", nargs="+", type=str, metavar="MODEL", help="model to evaluate; NAME=MODEL sets its label"
    )
    parser.add_argument(
        "--benchmark",
        nargs="+",
        type=str,
        required=True,
        metavar="NAME|FILE",
        help=f"published benchmarks ({', '.join(NAMED)}), or JSONL files of problems",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument("--limit", type=int | None, default=None, help="use only the first problems of each benchmark")
    parser.add_argument("--responses", type=int, default=4, help="responses per problem: the n of avg@n")
    parser.add_argument(
        "--k", nargs="+", type=int, help="values of k for pass@k; default: 2, 4, 8 and so on up to --responses"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="sampling temperature; 0 for greedy decoding")
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="nucleus sampling: probability mass of the candidate tokens"
    )
    parser.add_argument("--top_k", type=int, default=0, help="number of candidate tokens; 0 for all")
    parser.add_argument("--max_response_length", type=int, default=1024, help="maximum length of a response, tokens")
    parser.add_argument("--seed", type=int, default=0, help="seed of all responses")
    parser.add_argument("--system", type=str | None, default=None, help="system message before each problem")
    parser.add_argument("--suffix", type=str | None, default=None, help="line after the text of each problem")
    parser.add_argument(
        "--chat_template_options", type=dict[str, Any], default={}, help="for example {enable_thinking: false}"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="problems that are sampled and recorded together")
    parser.add_argument("--verifier", type=Verifier, default=MathVerify(), help="verifier of the JSONL files")
    parser.add_argument(
        "--export", type=Export | None, default=None, help="also export the responses for an external evaluator"
    )
    default = {"class_path": "HFEngine"}
    hidden = {*SAMPLING, "max_probe_gap"}
    parser.add_subclass_arguments(
        RolloutEngine, "engine", skip=hidden, default=default, help="engine that samples the responses"
    )
    return parser


def _engine(settings: Namespace) -> RolloutEngine:
    """Return the engine with the sampling options of the evaluation."""
    try:
        engine = replace(settings.engine, **{name: settings[name] for name in SAMPLING})
    except ValueError as error:
        name, _, problem = str(error).partition(" ")
        raise UserError(f"--{name}", settings[name], problem, "change the value") from error
    if type(engine.for_another_model()) is not type(engine):
        problem = "it samples from the model on its servers, not from the given ones"
        raise UserError("--engine", type(engine).__name__, problem, "use HFEngine or VLLMEngine")
    return engine


def _read_benchmarks(names: Sequence[str], verifier: Verifier) -> list[Benchmark]:
    """Return the benchmarks; published ones are graded by their own verifiers."""
    files = [name for name in names if name not in NAMED]
    if not files and verifier != MathVerify():
        problem, remedy = "published benchmarks are graded by verifiers of their own", "remove it"
        raise UserError("--verifier", type(verifier).__name__, problem, remedy)
    for name in files:
        if not Path(name).suffix and not Path(name).exists():
            raise unknown_name(name)
    found = [read_named(name) if name in NAMED else read_benchmark(Path(name), verifier) for name in names]
    return distinct_benchmarks(found)


def _labelled(names: Sequence[str]) -> dict[str, str]:
    """Return models by label: NAME of NAME=MODEL, otherwise the model itself."""
    found: dict[str, str] = {}
    for name in names:
        label, named, model = (name, "", "") if Path(name).is_dir() else name.partition("=")
        if slug(label) in map(slug, found):
            raise UserError("MODEL", name, "two models have the same label", "set different labels: NAME=MODEL")
        if not slug(label) or (named and not model):
            raise UserError("MODEL", name, "empty label or model", "use NAME=MODEL, or MODEL")
        found[label] = model if named else label
    return found


def _check(settings: Namespace, benchmarks: Sequence[Benchmark]) -> None:
    counts = {name: settings[name] for name in ("responses", "batch_size", "limit") if settings[name] is not None}
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name}", value, "must be at least 1", "set it to 1 or more")
    if settings.temperature == 0 and settings.responses > 1:
        problem = "at temperature 0 all responses to a problem are identical"
        raise UserError("--responses", settings.responses, problem, "use --responses 1, or a higher temperature")
    for k in settings.k or ():
        if not 1 <= k <= settings.responses:
            problem = f"pass@{k} cannot be estimated from {settings.responses} responses"
            raise UserError("--k", k, problem, "use values from 1 to --responses")
    if settings.export is None and not all(benchmark.graded for benchmark in benchmarks):
        name = next(benchmark.name for benchmark in benchmarks if not benchmark.graded)
        remedy = 'add "answer" to its rows, or use --export for an external evaluator'
        raise UserError(KEY, name, "its problems have no answers", remedy)


def _response_settings(given: Namespace) -> dict[str, Any]:
    """Return the settings that affect the responses, by dotted key."""
    flat = vars(given.as_flat())
    return {
        key.replace(".init_args", ""): value
        for key, value in flat.items()
        if key not in UNRELATED and not (key.startswith("engine.") and key.rpartition(".")[2] in ENGINE_UNRELATED)
    }


def _report(
    settings: Namespace,
    models: dict[str, str],
    runs: Sequence[BenchmarkRun],
    folder: EvaluationFolder,
    console: Console,
) -> None:
    """Print the tables and write the report and the exports."""
    records: dict[str, dict[str, list[ProblemRecord]]] = {}
    for own in runs:
        records.setdefault(own.benchmark.name, {})[own.model] = own.records()
    powers = [2**i for i in range(1, settings.responses.bit_length())]
    summary = summarise(records, settings.k or powers)
    facts: dict[str, Any] = {
        "models": models,
        "engine": type(settings.engine).__name__,
        "verifier": "; ".join(dict.fromkeys(str(own.benchmark.verifier) for own in runs)),
    }
    facts |= {name: settings[name] for name in SHOWN if settings[name] is not None}
    for table in tables(summary):
        console.print(table.to_rich(console.width))
    with writing("--out", folder.path):
        write_report(folder.path, summary, facts)
    for own in runs if settings.export is not None else ():
        with writing("--out", folder.path):
            path = export(settings.export, folder, own.model, own.benchmark.name, own.records())
        console.print(f"Exported for {settings.export}: {path}", highlight=False, soft_wrap=True)
    text = f"Responses: {folder.path}/responses; results: summary.json and table.md in the same folder."
    console.print(text, highlight=False, soft_wrap=True)
