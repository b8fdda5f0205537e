"""`fireopd compare`: methods side by side, on recorded rollouts or by training each of them with several seeds.

On recorded rollouts:  fireopd compare FILE ... --methods a.yaml b.yaml --out FOLDER [--student MODEL]
By training:           fireopd compare --config BASE.yaml --methods a.yaml b.yaml --seeds 1 2 3 4 5 --out FOLDER

A method is a YAML overlay of a run's settings. What follows `--` is handed to every `fireopd fit`. A comparison that
was stopped goes on with the same command. FOLDER/index.html shows what was found.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fireopd.analysis.compare.gradients import alignments
from fireopd.analysis.compare.replays import agreements, portray, read_recordings
from fireopd.analysis.compare.run_plan import PlannedRun, fit_arguments, plan
from fireopd.analysis.compare.run_queue import RunQueue, log_tail
from fireopd.atomic_files import make_folder
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_files import check_training, named, read_method
from fireopd.errors import UserError
from fireopd.models.loading import disable_dropout, load_causal_lm
from fireopd.models.scorer import CausalScorer

OURS = ("--seed_everything", "--trainer.default_root_dir", "--ckpt_path", "--config")
"""Arguments of a run that the comparison sets."""
SEEDS = (1, 2, 3, 4, 5)
"""Seeds of the runs where none are named."""


def run(arguments: Sequence[str]) -> None:
    """Compare methods."""
    own, more = _split(arguments)
    settings = _parser().parse_args(own)
    if bool(settings.files) == bool(settings.config):
        problem, remedy = "either recorded files or a base configuration", "give FILE ..., or --config BASE.yaml"
        raise UserError("FILE", " ".join(map(str, settings.files)), problem, remedy)
    if find_spec("matplotlib") is None:
        raise UserError(
            "COMMAND",
            "compare",
            "needs matplotlib, which is not installed",
            "install it: pip install 'fireopd[compare]'",
        )
    load_plugins()
    if settings.config:
        _train(settings, more)
    else:
        _replay(settings, more)


def _parser() -> argparse.ArgumentParser:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("fireopd compare", description=__doc__, formatter_class=kind, allow_abbrev=False)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="scored rollouts, of RolloutRecorder")
    parser.add_argument("--methods", nargs="+", type=Path, required=True, metavar="YAML", help="overlays, one a method")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where everything goes")
    parser.add_argument("--student", help="a model, to compare gradients at; on recorded rollouts")
    parser.add_argument("--token_budget", type=int, default=16384, help="tokens that go through it at once: 16384")
    parser.add_argument("--config", action="append", metavar="YAML", help="what all runs share; may be repeated")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the runs: 1 2 3 4 5")
    parser.add_argument("--control", help="the method that others are compared with: the first")
    parser.add_argument("--jobs", type=int, help="runs at a time: 1")
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what stands before and after `--`."""
    given = list(arguments)
    place = given.index("--") if "--" in given else len(given)
    return given[:place], given[place + 1 :]


def _replay(settings: argparse.Namespace, more: Sequence[str]) -> None:
    """Compare methods on recorded rollouts."""
    given = {"": more, "seeds": settings.seeds, "jobs": settings.jobs, "control": settings.control}
    for option, value in given.items():
        if value:
            raise UserError(f"--{option}", value, "no run is started on recorded rollouts", "leave it out")
    console = Console()
    methods = {}
    for name, path in named(settings.methods).items():
        methods[name], others = read_method(name, path)
        if others:
            console.print(
                f"{name}: of no account on recorded rollouts: {', '.join(others)}", highlight=False, soft_wrap=True
            )
        if settings.student and methods[name].direct:
            problem = "its objective compares whole distributions, which recorded rollouts do not hold"
            raise UserError("--methods", name, problem, "leave it out, or leave out --student")
    recordings = read_recordings(settings.files, methods)
    make_folder(settings.out)
    gradients = None
    answers = {name: [m.targets(recording.batch) for recording in recordings] for name, m in methods.items()}
    if settings.student:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        student = disable_dropout(load_causal_lm(settings.student, "--student", "float32", device))
        with console.status("Comparing gradients"):
            scorer = CausalScorer(student)
            gradients = alignments(scorer, recordings, methods, answers, settings.token_budget)
    portraits = {name: portray(recordings, targets) for name, targets in answers.items()}
    reports = import_module("fireopd.analysis.compare.replay_report")
    report = reports.replay_report(recordings, portraits, agreements(answers), gradients, settings.student)
    _finish(report, settings.out, console)


def _train(settings: argparse.Namespace, more: Sequence[str]) -> None:
    """Compare methods by training them."""
    methods = named(settings.methods)
    _check_options(settings, methods, more)
    control = settings.control or next(iter(methods))
    base = [argument for path in settings.config for argument in ("--config", path)]
    fits = {name: fit_arguments(base, path, more) for name, path in methods.items()}
    with _silence():
        checked = {name: check_training(name, path, fits[name]) for name, path in methods.items()}
    runs = plan(settings.out, fits, checked, settings.seeds or SEEDS)
    console = Console()
    queue = RunQueue(settings.jobs or 1, console)
    stopped = False
    try:
        queue.train(runs, settings.out)
    except KeyboardInterrupt:
        stopped = True
    if any(planned.finished for planned in runs):
        reports = import_module("fireopd.analysis.compare.training_report")
        shared = " ".join([*settings.config, *more])
        _finish(reports.training_report(runs, queue.failed, control, shared), settings.out, console)
    _say_what_is_missing(queue.failed, stopped, console)


def _check_options(settings: argparse.Namespace, methods: dict[str, Path], more: Sequence[str]) -> None:
    if settings.control is not None and settings.control not in methods:
        raise UserError("--control", settings.control, "no such method", f"the methods are {', '.join(methods)}")
    if settings.jobs is not None and settings.jobs < 1:
        raise UserError("--jobs", settings.jobs, "not a number of runs", "give 1 or more")
    if settings.seeds is not None and len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("--seeds", settings.seeds, "a seed stands there twice", "name each once: same seed, same run")
    if settings.student:
        raise UserError("--student", settings.student, "gradients are compared on recorded rollouts", "leave it out")
    for argument in more:
        if argument.partition("=")[0] in OURS:
            raise UserError(
                "--", argument, "the comparison sets this itself", "use --config, --seeds and --out before --"
            )


def _finish(report: Any, out: Path, console: Console) -> None:
    """Print the tables, and write everything."""
    for table in report.tables[:2]:
        console.print(table.to_rich())
    report.write(out)
    console.print(
        f"{out}/index.html shows it all; table.md, comparison.json and plots/ hold it.", highlight=False, soft_wrap=True
    )


def _say_what_is_missing(failed: Sequence[PlannedRun], stopped: bool, console: Console) -> None:
    """Say why runs failed and how to go on; end with an exit code other than 0 if anything is missing."""
    for planned in failed:
        console.print(f"\n{planned.name} failed. The end of {planned.log}:", highlight=False, soft_wrap=True)
        console.print(log_tail(planned), markup=False, highlight=False, soft_wrap=True)
    if stopped:
        console.print("Stopped. The same command goes on where it was.")
        sys.exit(130)
    if failed:
        console.print("\nThe same command tries the failed runs again; delete a run's folder to begin it anew.")
        sys.exit(1)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what Lightning says of every trainer that is made only to be checked out of the output."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
