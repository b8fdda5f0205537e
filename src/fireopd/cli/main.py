"""Entry point of the program: `fireopd COMMAND ...`. Each command is a module in `fireopd.cli.commands`."""

import logging
import os
import select
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version

from rich.console import Console

from fireopd.cli.signals import ended_at_once, terminable
from fireopd.errors import UserError

__all__ = ["COMMANDS", "GROUPS", "main", "quieten", "usage"]

GROUPS = {
    "Train": {
        "fit": "train a student on its own rollouts: fireopd fit --config configs/multi_teacher.yaml",
        "check": "check a configuration and estimate its memory without training: fireopd check --config FILE",
        "methods": "list method overlays with paper, strategies and signals: fireopd methods",
    },
    "Inspect runs": {
        "runs": "list runs with state, steps, accuracy and method: fireopd runs FOLDER ...",
        "report": "write an HTML page on a run: fireopd report RUN --out PAGE.html",
        "view": "show recorded rollouts with token weights and scores: fireopd view FILE ... --out PAGE.html",
    },
    "Evaluate and compare": {
        "evaluate": "evaluate models on benchmarks: fireopd evaluate MODEL --benchmark FILE --out FOLDER",
        "compare": "compare methods over seeds or on recorded rollouts: fireopd compare --help",
        "replay": "filter and weight recorded rollouts without any model: fireopd replay FILE --out OUT",
        "score": "add teacher scores to responses: fireopd score FILE --teachers TEACHERS --out FOLDER",
    },
    "Models": {
        "export": "export the student of a checkpoint as a Hugging Face folder: fireopd export CKPT OUT",
        "serve": "start a vLLM server for rollouts: fireopd serve MODEL --port 8001",
    },
    "Extend": {
        "new": "create a package with a new strategy: fireopd new weighter my_package.MyWeighter",
        "plugins": "list the installed plug-ins",
    },
}
"""Help text by command, in groups."""
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}
"""Help text by command."""
HANDLES_SIGTERM = ("serve",)
"""Commands with a handler of SIGTERM from their start. That of `fit` replaces the general one while it trains."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. A `UserError` is printed as a single message, with exit code 2; Ctrl-C ends with 130."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        if stop.args:
            print(f"fireopd: {stop}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at the end
        sys.exit(128 + signal.SIGPIPE)


def _output_is_closed() -> bool:
    """Return whether the reader of the output has ended, as `head` does; pipes of other processes can break, too."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(arguments: Sequence[str]) -> None:
    command, *rest = arguments
    if command in ("-h", "--help"):
        print(usage())
        return
    if command == "--version":
        print(f"fireopd {version('fireopd')}")
        return
    quieten()
    try:
        if command not in COMMANDS:
            raise UserError("COMMAND", command, "no such command", f"use one of {', '.join(COMMANDS)}")
        with ended_at_once():
            module = import_module(f"fireopd.cli.commands.{command}")
        with nullcontext() if command in HANDLES_SIGTERM else terminable():
            module.run(rest)
    except UserError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        for single in error.each:
            console.print(f"fireopd: {single}")
        sys.exit(2)


def usage() -> str:
    """Return the help text of the program."""
    lines = ["usage: fireopd COMMAND ..."]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10}{text}" for name, text in group.items())]
    more = "See fireopd COMMAND --help for the options of a command, and fireopd --version for the version."
    return "\n".join([*lines, "", more])


def quieten() -> None:
    """Suppress warnings that users cannot act on, and progress bars if the output is not a terminal."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
    warnings.filterwarnings("ignore", message="The dirpath has changed")  # a resumed run has a new folder
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists")  # those of TensorBoard
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist")  # already reduced
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())
    if not sys.stderr.isatty():  # transformers reads the setting of the hub
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
