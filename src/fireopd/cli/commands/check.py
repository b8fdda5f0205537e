"""`fireopd check --config FILE`: check a configuration, summarise the run, show a prompt, and estimate the memory.

The arguments are those of `fireopd fit`. No model is loaded and no file is written; the exit code is 2 if a problem is
found. Set the number of GPUs of the run with --trainer.devices and --trainer.num_nodes.

With --sample_teachers N, teachers and student are loaded in turn, and answer N training prompts of each teacher. The
result is their accuracy, and the log-probability of reference solutions, with a warning if a teacher is worse than the
student on its own prompts.

With --gpus, the run is planned for GPUs that this machine need not have. Models may be folders with a config.json only.

  --gpus N               number of GPUs on all machines, in place of trainer.devices and trainer.accelerator
  --gpu_memory GIB       memory of a GPU, GiB; that of the card by default
  --gpu CARD             H100, H200, B200, A100-80, A100-40, L40S or RTX4090: also estimate the seconds of a step
  --mean_response N      mean tokens of a response, for the seconds; a quarter of the maximum by default

The exit code is 2 if the run does not fit. Then the cheapest change with which it fits is printed.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from fireopd.analysis.teacher_confidence import confidence_lines
from fireopd.cli.gpu_options import GPUOptions, take_gpu_options
from fireopd.cli.memory_tables import host_lines, memory_table, peak_lines, seconds_table
from fireopd.cli.teacher_options import take_sample_option
from fireopd.cli.training_cli import build
from fireopd.errors import MissingResourceError, UserError, distinct
from fireopd.training.first_prompts import first_prompts
from fireopd.training.memory_estimate import available
from fireopd.training.memory_phases import largest, memory_phases
from fireopd.training.remedies import cheapest_remedy, shortages
from fireopd.training.run_checks import problems
from fireopd.training.run_plan import RunPlan
from fireopd.training.run_summary import summary_rows
from fireopd.training.run_warnings import run_warnings
from fireopd.training.step_seconds import ASSUMPTIONS, step_seconds

__all__ = ["run"]


class Report:
    """Output of the check; on a terminal, a last line shows what is computed."""

    def __init__(self) -> None:
        """Print to the terminal."""
        self.console = Console()
        self.warnings = 0
        self.status = Console(stderr=True).status("")

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """Show what is computed until the context ends; nothing if the output is not a terminal."""
        self.status.update(f"{text} ...")
        with self.status:
            yield

    def lines(self, *lines: str) -> None:
        """Print lines as they are, and count the warnings."""
        for line in lines:
            self.warnings += line.startswith("warning: ")
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def table(self, table: Any) -> None:
        """Print a table."""
        self.console.print(table)


def run(arguments: Sequence[str]) -> None:
    """Check a run and print the result."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
    sampled, own = take_sample_option(arguments)
    gpus, others = take_gpu_options(own)
    report = Report()
    with report.stage("reading the configuration"):
        cli = build([*others, *(gpus.arguments if gpus else [])], train=False)
    with report.stage("tokenizing the prompts"):
        cli.prepare()
    plan = cli.model.run_plan(cli.datamodule)
    plan = gpus.plan(plan) if gpus else plan
    with report.stage("checking models, prompts and optimizer"):
        found = distinct([*problems(plan), *cli.resume_problems()])
    missing = [error for error in found if gpus is not None and isinstance(error, MissingResourceError)]
    found = [error for error in found if error not in missing]
    report.lines(*(f"{name:<10}{text}" for name, text in summary_rows(plan).items()), *first_prompts(plan))
    report.lines(*(f"warning: {text}" for text in run_warnings(plan)))
    report.lines(*(f"not checked, since this machine lacks it: {error}" for error in missing))
    report.lines(*(f"problem: {error}" for error in found))
    if found:
        report.lines(f"{len(found)} problem{'s' if len(found) > 1 else ''} found.")
        sys.exit(2)
    if sampled is not None:
        report.lines(*confidence_lines(plan, sampled))
    if gpus is None:
        _this_machine(plan, report)
    else:
        _other_gpus(plan, gpus, report)
    warned = f" Warnings above: {report.warnings}." if report.warnings else ""
    report.lines(f"No problems found.{warned}")


def _this_machine(plan: RunPlan, report: Report) -> None:
    """Print the estimated memory of a process; some architectures cannot be estimated."""
    device = plan.processes.device
    limit = available(device)
    try:
        with report.stage("measuring the memory of a layer"):
            phases = memory_phases(plan, limit)
    except Exception as error:
        report.lines(f"The memory of a process cannot be estimated ({error!r}).")
        return
    report.table(memory_table(phases, limit, f"estimated memory per process ({device.type})"))
    report.lines(*peak_lines(largest(phases)))
    if largest(phases).total > limit:
        remedy = "plan for other hardware with --gpus, which also names the cheapest change"
        report.lines(f"This exceeds the memory of the {device.type}: {remedy}.")


def _other_gpus(plan: RunPlan, gpus: GPUOptions, report: Report) -> None:
    """Print the plan for GPUs, and exit with code 2 if the run does not fit."""
    try:
        with report.stage("measuring the memory of a layer"):
            phases = memory_phases(plan, gpus.memory)
    except UserError:
        raise
    except Exception as error:
        problem = f"the memory of this architecture cannot be estimated ({error!r})"
        raise UserError("--gpus", gpus.gpus, problem, "leave --gpus out") from error
    card = f" {gpus.card.name}" if gpus.card else " GPUs"
    report.table(memory_table(phases, gpus.memory, f"estimated memory of a GPU, {gpus.gpus}{card}"))
    report.lines(*peak_lines(largest(phases)), *host_lines(plan))
    if gpus.card is not None:
        _print_seconds(plan, gpus, report)
    short = shortages(plan, gpus.memory)
    if not short:
        return
    report.lines(*(f"does not fit: {text}" for text in short))
    with report.stage("looking for a change with which the run fits"):
        remedy = cheapest_remedy(plan, gpus.memory)
    if remedy is None:
        report.lines(
            "No change that is known makes it fit; use smaller models, shorter responses, or GPUs with more memory."
        )
    else:
        report.lines(f"Cheapest change that fits: {' '.join(remedy.arguments)}")
    sys.exit(2)


def _print_seconds(plan: RunPlan, gpus: GPUOptions, report: Report) -> None:
    assert gpus.card is not None
    mean = gpus.mean_response or max(1, plan.data.engine.max_response_length // 4)
    parts = step_seconds(plan, gpus.card, gpus.memory, mean)
    title = f"estimated seconds of a step, {gpus.gpus} {gpus.card.name}, mean response {mean} tokens"
    report.table(seconds_table(parts, title))
    report.lines(f"Assumed: {ASSUMPTIONS}. {gpus.card.name}: {gpus.card.sheet}.")
