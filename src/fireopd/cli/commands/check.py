"""`fireopd check --config FILE`: what will run, all that is wrong with it, and the memory that it takes.

The arguments are those of `fireopd fit`. Nothing is loaded and nothing is written; the exit code is 2 if anything is
wrong. Say how many GPUs there will be with --trainer.devices and --trainer.num_nodes.
"""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fireopd.cli.training_cli import FitCLI, build
from fireopd.errors import UserError
from fireopd.training.checks import problems
from fireopd.training.memory_estimate import Part, available, estimate
from fireopd.training.run_summary import GIB, outline


def run(arguments: Sequence[str]) -> None:
    """Check a run."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
    cli = build(arguments, train=False)
    console = Console()
    wrong = find(cli)
    if cli.datamodule.training_prompts:
        say_what_runs(cli, console)
    for problem in wrong:
        console.print(f"wrong: {problem}", markup=False, highlight=False, soft_wrap=True)
    if wrong:
        console.print(f"{len(wrong)} to mend before fireopd fit can run.", highlight=False)
        sys.exit(2)
    say_memory(cli, console)
    console.print("Nothing found wrong.")


def find(cli: FitCLI) -> list[UserError]:
    """Return all that is wrong with a run; what prevents reading the prompts comes alone."""
    try:
        cli.prepare()
    except UserError as problem:
        return [problem]
    return problems(cli.model, cli.datamodule)


def say_what_runs(cli: FitCLI, console: Console) -> None:
    """Print what will run, a line for each thing."""
    for name, text in outline(cli.model, cli.datamodule).items():
        console.print(f"{name:<10}{text}", markup=False, highlight=False, soft_wrap=True)


def say_memory(cli: FitCLI, console: Console) -> None:
    """Print what a process will hold, and whether its device can; of some architectures that is not known."""
    try:
        parts = estimate(cli.model, cli.datamodule)
    except Exception as error:
        console.print(
            f"The memory of a process is not known ({error!r}).", markup=False, highlight=False, soft_wrap=True
        )
        return
    device = cli.trainer.strategy.root_device
    limit = available(device)
    total = sum(part.size for part in parts)
    console.print(table(parts, total, limit, f"memory of a process, estimated ({device.type})"))
    if total > limit:
        remedy = "shard over more processes, lower model.token_budget, or set model.gradient_checkpointing"
        console.print(f"More than the {device.type} has: {remedy}.", highlight=False, soft_wrap=True)


def table(parts: Sequence[Part], total: int, limit: int, title: str) -> Table:
    """Return the table of the parts, GiB."""
    result = Table(title=title)
    for column in ("part", "GiB", "from"):
        result.add_column(column, justify="right" if column == "GiB" else "left")
    for part in parts:
        result.add_row(part.name, f"{part.size / GIB:.3f}", part.made_of)
    result.add_section()
    result.add_row("together", f"{total / GIB:.3f}", f"of {limit / GIB:.1f} that there are")
    return result
