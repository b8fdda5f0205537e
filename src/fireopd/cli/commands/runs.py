"""`fireopd runs FOLDER ...`: list the runs of folders with state, complete steps, accuracy and method.

A run is running, finished, stopped (resume it with --ckpt_path), or not started. The accuracy is avg@k on held-out
prompts, mean over the tasks.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fireopd.analysis.runs import find_runs
from fireopd.cli.command_parser import CommandParser
from fireopd.errors import UserError

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Print the table of runs."""
    parser = CommandParser("runs", __doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("runs")], help="folders to search; default: runs"
    )
    settings = parser.parse_args(list(arguments))
    for folder in settings.folders:
        if not folder.is_dir():
            raise UserError("FOLDER", str(folder), "no such folder", "give a trainer.default_root_dir")
    found = {status.folder.resolve(): status for folder in settings.folders for status in find_runs(folder)}
    if not found:
        print(f"No runs in {', '.join(map(str, settings.folders))}.")
        return
    table = Table()
    for column in ("run", "state", "steps", "avg@k", "best", "at step", "seed", "method"):
        number = column in ("steps", "avg@k", "best", "at step", "seed")
        table.add_column(column, overflow="fold", justify="right" if number else "left")
    for status in found.values():
        numbers = [status.steps, status.accuracy, status.best, status.best_step, status.seed]
        table.add_row(str(status.folder), status.state, *map(_text, numbers), status.method)
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
