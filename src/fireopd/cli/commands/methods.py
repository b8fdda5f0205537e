"""`fireopd methods [FOLDER]`: list method overlays with paper, strategies and the signals that they read.

An overlay is a YAML file that sets filter, weighter and objective; it is applied with `fireopd fit --config CONFIG
--config OVERLAY`. Parts that are those of plain OPD are left out.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fireopd.analysis.compare.conditions import files_by_name
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_files import read_method
from fireopd.cli.parser import Parser
from fireopd.errors import UserError
from fireopd.method import Method

__all__ = ["run"]

PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
"""Paper in the first line of an overlay."""
PLAIN = ("KeepAll", "UniformWeighter", "ReverseKL")
"""Strategies of plain OPD."""
ALWAYS = frozenset({"student_logprobs", "teacher_logprobs", "sampling_logprobs"})
"""Signals of every method."""


def run(arguments: Sequence[str]) -> None:
    """Print the table of methods."""
    parser = Parser(prog="fireopd methods", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("configs/methods"), help="folder of overlays; configs/methods"
    )
    folder = parser.parse_args(list(arguments)).folder
    if not folder.is_dir():
        raise UserError("FOLDER", str(folder), "no such folder", "give the folder configs/methods of a checkout")
    load_plugins()
    table = Table(show_lines=False)
    for column in ("overlay", "paper", "filter", "weighter", "objective", "reads"):
        table.add_column(column, overflow="fold")
    for name, path in files_by_name(sorted(folder.glob("*.yaml")), "method").items():
        method, others = read_method(name, path, "FOLDER")
        paper = PAPER.search(path.read_text(encoding="utf-8").partition("\n")[0])
        table.add_row(name, paper[1] if paper else "", *_parts(method), ", ".join(_reads(method, others)))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)


def _parts(method: Method) -> list[str]:
    names = [type(part).__name__ for part in method.strategies.values()]
    return ["" if name in PLAIN else name for name in names]


def _reads(method: Method, others: Sequence[str]) -> list[str]:
    """Return the signals, and what else a method needs of a run."""
    reads = sorted(method.requires - ALWAYS)
    if method.direct:
        reads.append("distributions")
    if "data.responses_per_prompt" in others:
        reads.append("groups")
    return reads
