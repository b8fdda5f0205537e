"""The program's front door: `fireopd COMMAND ...`. Everything about a command is in the module that bears its name."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from rich.console import Console

from fireopd.errors import UserError

COMMANDS = {
    "fit": "train a student on its own rollouts: fireopd fit --config configs/multi_teacher.yaml",
    "check": "see what is wrong with a run, and what memory it takes, without training: fireopd check --config FILE",
    "replay": "filter and weigh recorded rollouts without any model: fireopd replay FILE --out OUT",
    "view": "see what a method makes of each token of recorded rollouts: fireopd view FILE ... --out PAGE.html",
    "compare": "methods side by side, over seeds or on recorded rollouts: fireopd compare --help",
    "evaluate": "models on benchmarks, side by side: fireopd evaluate MODEL --benchmark FILE --out FOLDER",
    "export": "write the student of a checkpoint as a Hugging Face folder: fireopd export CKPT OUT",
    "serve": "start a vLLM server for rollouts: fireopd serve MODEL --port 8001",
    "new": "start a strategy of your own, in a package: fireopd new weighter my_package.MyWeighter",
    "plugins": "list the strategies that are installed",
}
"""Commands and what they do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. What a user can mend ends in one sentence and exit code 2."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    if command == "--version":
        print(f"fireopd {version('fireopd')}")
        return
    quieten()
    try:
        if command not in COMMANDS:
            raise UserError("COMMAND", command, "no such command", f"the commands are {', '.join(COMMANDS)}")
        import_module(f"fireopd.cli.commands.{command}").run(rest)
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"fireopd: {error}")
        sys.exit(2)


def usage() -> str:
    """Return the help of the program."""
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    more = "fireopd COMMAND --help says more, fireopd --version which this is."
    return "\n".join(["usage: fireopd COMMAND ...", "", *lines, "", more])


def quieten() -> None:
    """Keep notes that no user can act on, and progress bars that nobody watches, out of the output."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
    warnings.filterwarnings("ignore", message="The dirpath has changed")  # a run that goes on has a folder of its own
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists")  # TensorBoard's files are there
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist")  # they are reduced
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        import_module("transformers.utils.logging").disable_progress_bar()
