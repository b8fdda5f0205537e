"""`fireopd check --config FILE`: check a configuration, summarise the run, show a prompt, and estimate the memory.

The arguments are those of `fireopd fit`. No model is loaded and no file is written; the exit code is 2 if a problem is
found. Set the number of GPUs of the run with --trainer.devices and --trainer.num_nodes.
"""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fireopd.cli.training_cli import build
from fireopd.errors import distinct
from fireopd.training.first_prompts import first_prompts
from fireopd.training.memory_estimate import Part, available, estimate
from fireopd.training.run_checks import problems
from fireopd.training.run_plan import RunPlan
from fireopd.training.run_summary import GIB, summary_rows
from fireopd.training.run_warnings import run_warnings

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Check a run and print the result."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
    cli = build(arguments, train=False)
    console = Console()
    cli.prepare()
    plan = cli.model.run_plan(cli.datamodule)
    found = distinct([*problems(plan), *cli.resume_problems()])
    for name, text in summary_rows(plan).items():
        console.print(f"{name:<10}{text}", markup=False, highlight=False, soft_wrap=True)
    for line in first_prompts(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    lines = [f"warning: {text}" for text in run_warnings(plan)] + [f"problem: {error}" for error in found]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found:
        console.print(f"{len(found)} problem{'s' if len(found) > 1 else ''} found.", highlight=False)
        sys.exit(2)
    _print_memory(plan, console)
    console.print("No problems found.")


def _print_memory(plan: RunPlan, console: Console) -> None:
    """Print the estimated memory of a process; some architectures cannot be estimated."""
    try:
        parts = estimate(plan)
    except Exception as error:
        console.print(
            f"The memory of a process cannot be estimated ({error!r}).", markup=False, highlight=False, soft_wrap=True
        )
        return
    device = plan.processes.device
    limit = available(device)
    total = sum(part.size for part in parts)
    console.print(_memory_table(parts, total, limit, f"estimated memory per process ({device.type})"))
    if total > limit:
        remedy = "shard over more processes, lower model.token_budget, or set model.gradient_checkpointing"
        console.print(f"This exceeds the memory of the {device.type}: {remedy}.", highlight=False, soft_wrap=True)


def _memory_table(parts: Sequence[Part], total: int, limit: int, title: str) -> Table:
    result = Table(title=title)
    for column in ("part", "GiB", "computed from"):
        result.add_column(column, justify="right" if column == "GiB" else "left")
    for part in parts:
        result.add_row(part.name, f"{part.size / GIB:.3f}", part.formula)
    result.add_section()
    result.add_row("total", f"{total / GIB:.3f}", f"of {limit / GIB:.1f} available")
    return result
