"""`fireopd compare`: compare methods on recorded rollouts, or by training each of them with several seeds.

On recorded rollouts:  fireopd compare FILE ... --methods a.yaml b.yaml --out FOLDER [--student MODEL]
By training:           fireopd compare --config BASE.yaml --methods a.yaml b.yaml --seeds 1 2 3 4 5 --out FOLDER
On several test beds:  the same with --beds x.yaml y.yaml
With several values:   the same with --vary KEY=v1,v2,... (one setting or two)
As jobs of SLURM:      the same with --slurm time=MINUTES OPTION=VALUE ...

A method is a YAML file with settings of a run or, for training, the name of an installed filter, weighter or objective.
Arguments after `--` are passed to every `fireopd fit`. To resume a stopped comparison, repeat the command.
FOLDER/index.html shows the results.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fireopd.analysis.compare.conditions import Condition, beds, check_effect, files_by_name, variations
from fireopd.analysis.compare.gradients import alignments
from fireopd.analysis.compare.launchers import Launcher
from fireopd.analysis.compare.method_statistics import agreements, compute_statistics, read_recordings
from fireopd.analysis.compare.planned_run import PlannedRun, fit_arguments, plan_runs
from fireopd.analysis.compare.run_queue import RunQueue, log_tail
from fireopd.atomic_files import make_folder, writing
from fireopd.cli.command_parser import CommandParser
from fireopd.cli.compared_methods import methods_to_train
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_files import check_training, read_method
from fireopd.cli.optional_packages import check_package
from fireopd.errors import UserError
from fireopd.models.loading import disable_dropout, load_causal_lm
from fireopd.models.scorer import CausalScorer

__all__ = ["run"]

RESERVED = ("--seed_everything", "--trainer.default_root_dir", "--ckpt_path", "--config")
"""Arguments of `fireopd fit` that the comparison sets."""
SEEDS = (1, 2, 3, 4, 5)
"""Default seeds."""


def run(arguments: Sequence[str]) -> None:
    """Compare methods."""
    own, more = _split(arguments)
    settings = _parser().parse_args(own)
    if bool(settings.files) == bool(settings.config):
        problem, remedy = "give either recorded files or a base configuration", "use FILE ..., or --config BASE.yaml"
        raise UserError("FILE", " ".join(map(str, settings.files)), problem, remedy)
    check_package("matplotlib", "fireopd compare", "compare")
    load_plugins()
    if settings.config:
        _compare_trained(settings, more)
    else:
        _compare_recorded(settings, more)


def _parser() -> CommandParser:
    parser = CommandParser("compare", __doc__)
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="scored rollouts, as written by the RolloutRecorder callback",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        type=Path,
        required=True,
        metavar="METHOD",
        help="YAML files; for training also names of installed strategies",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument("--student", help="model to compare gradients at, on recorded rollouts")
    parser.add_argument(
        "--token_budget", type=int, default=16384, help="tokens per forward pass of the student, default 16384"
    )
    parser.add_argument(
        "--config", action="append", metavar="YAML", help="configuration that all runs share; may be repeated"
    )
    parser.add_argument("--beds", nargs="+", type=Path, metavar="YAML", help="test beds: files with settings of a run")
    parser.add_argument(
        "--vary", action="append", metavar="KEY=v1,v2,...", help="values of a setting; may be given twice"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds of the runs, default 1 2 3 4 5")
    parser.add_argument("--control", help="method that the others are compared with, default the first")
    parser.add_argument("--jobs", type=int, help="number of runs at a time, default 1; with --slurm, all")
    parser.add_argument(
        "--slurm",
        nargs="+",
        metavar="OPTION=VALUE",
        help="submit each run as a job with these options of sbatch, such as time=120 partition=gpu gpus_per_node=1",
    )
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after `--`."""
    given = list(arguments)
    place = given.index("--") if "--" in given else len(given)
    return given[:place], given[place + 1 :]


def _compare_recorded(settings: argparse.Namespace, more: Sequence[str]) -> None:
    """Compare methods on recorded rollouts."""
    given = {"": more, "seeds": settings.seeds, "jobs": settings.jobs, "control": settings.control}
    given |= {"beds": settings.beds, "vary": settings.vary, "slurm": settings.slurm}
    for option, value in given.items():
        if value:
            raise UserError(f"--{option}", value, "it has no effect on recorded rollouts", "leave it out")
    console = Console()
    methods = {}
    for name, path in files_by_name(settings.methods, "method").items():
        methods[name], others = read_method(name, path)
        if others:
            console.print(
                f"{name}: no effect on recorded rollouts: {', '.join(others)}", highlight=False, soft_wrap=True
            )
        if settings.student and methods[name].direct:
            problem = "its objective requires full distributions, which recorded rollouts do not contain"
            raise UserError("--methods", name, problem, "leave it out, or leave out --student")
    recordings = read_recordings(settings.files, methods)
    make_folder(settings.out)
    gradients = None
    targets = {name: [m.targets(recording.batch) for recording in recordings] for name, m in methods.items()}
    if settings.student:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        student = disable_dropout(load_causal_lm(settings.student, "--student", "float32", device))
        with console.status("Comparing gradients"):
            scorer = CausalScorer(student)
            gradients = alignments(scorer, recordings, methods, targets, settings.token_budget)
    statistics = {name: compute_statistics(recordings, own) for name, own in targets.items()}
    reports = import_module("fireopd.analysis.compare.recorded_report")
    report = reports.recorded_report(recordings, statistics, agreements(targets), gradients, settings.student)
    _finish(report, settings.out, console)


def _compare_trained(settings: argparse.Namespace, more: Sequence[str]) -> None:
    """Compare methods by training them."""
    methods = methods_to_train(settings.methods)
    _check_options(settings, methods, more)
    launcher = _slurm_launcher(settings) if settings.slurm else None
    conditions = _conditions(settings)
    control = settings.control or next(iter(methods))
    base = [argument for path in settings.config for argument in ("--config", path)]
    fits = {
        (condition.name, name): fit_arguments([*base, *condition.before], own, [*more, *condition.after])
        for condition in conditions
        for name, own in methods.items()
    }
    console = Console()
    with console.status("Checking settings"), _silenced():
        checked = {place: check_training(" ".join(filter(None, place)), own) for place, own in fits.items()}
    check_effect(checked, "--vary" if settings.vary else "--beds")
    runs = plan_runs(settings.out, fits, checked, settings.seeds or SEEDS)
    queue = RunQueue(settings.jobs or (len(runs) if launcher else 1), console, launcher)
    stopped = False
    try:
        queue.train(runs, settings.out)
    except KeyboardInterrupt:
        stopped = True
    if any(planned.finished for planned in runs):
        shared = " ".join([*settings.config, *more])
        _finish(_trained_report(settings, conditions, (runs, queue.failed, control, shared)), settings.out, console)
    _report_missing(queue.failed, stopped, console)


def _conditions(settings: argparse.Namespace) -> list[Condition]:
    """Return the conditions of all runs."""
    if settings.beds and settings.vary:
        raise UserError("--vary", settings.vary, "has no effect on --beds", "give the bed as a second --config")
    if settings.beds:
        return beds(settings.beds)
    return variations(settings.vary) if settings.vary else [Condition()]


def _slurm_launcher(settings: argparse.Namespace) -> Launcher:
    """Return the launcher of jobs of SLURM, which needs an extra."""
    check_package("submitit", "--slurm", "slurm")
    options = dict(option.partition("=")[::2] for option in settings.slurm)
    slurm = import_module("fireopd.analysis.compare.slurm")
    return slurm.SlurmLauncher(slurm.slurm_executor(settings.out / "slurm", options))


def _trained_report(settings: argparse.Namespace, conditions: Sequence[Condition], found: tuple[Any, ...]) -> Any:
    """Return the report on trained methods; reports need matplotlib, which is an extra."""
    if settings.beds:
        return import_module("fireopd.analysis.compare.bed_report").bed_report(*found)
    if settings.vary:
        return import_module("fireopd.analysis.compare.sensitivity_report").sensitivity_report(*found, conditions)
    return import_module("fireopd.analysis.compare.training_report").training_report(*found)


def _check_options(settings: argparse.Namespace, methods: dict[str, list[str]], more: Sequence[str]) -> None:
    if settings.control is not None and settings.control not in methods:
        raise UserError("--control", settings.control, "no such method", f"use one of {', '.join(methods)}")
    if settings.jobs is not None and settings.jobs < 1:
        raise UserError("--jobs", settings.jobs, "must be at least 1", "set it to 1 or more")
    if settings.seeds is not None and len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("--seeds", settings.seeds, "a seed occurs twice", "list each seed once")
    if settings.student:
        raise UserError(
            "--student", settings.student, "gradients can only be compared on recorded rollouts", "leave it out"
        )
    for argument in more:
        if argument.partition("=")[0] in RESERVED:
            raise UserError("--", argument, "the comparison sets it", "use --config, --seeds and --out before --")


def _finish(report: Any, out: Path, console: Console) -> None:
    """Print the main tables and write the report."""
    for table in report.tables[:2]:
        console.print(table.to_rich(console.width))
    if "warning" in report.facts:
        console.print(f"warning: {report.facts['warning']}", highlight=False, soft_wrap=True)
    with writing("--out", out):
        report.write(out)
    console.print(
        f"Report: {out}/index.html, with table.md, comparison.json and plots/ in the same folder.",
        highlight=False,
        soft_wrap=True,
    )


def _report_missing(failed: Sequence[PlannedRun], stopped: bool, console: Console) -> None:
    """Print why runs failed and how to continue; exit with a code other than 0 if any run is missing."""
    for planned in failed:
        console.print(f"\n{planned.name} failed. The end of {planned.log}:", highlight=False, soft_wrap=True)
        console.print(log_tail(planned), markup=False, highlight=False, soft_wrap=True)
    if stopped:
        console.print("Stopped. Repeat the command to resume.")
        sys.exit(130)
    if failed:
        console.print("\nRepeat the command to retry the failed runs; delete the folder of a run to restart it.")
        sys.exit(1)


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence Lightning's messages for trainers that are only built for checks."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
