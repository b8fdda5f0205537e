"""How fast fireopd is beside others, and how its cost grows: `python scripts/bench.py --out bench.json`.

Two sides of a ratio take turns in one process, step by step, so that what else the machine does touches both; peaks of
memory are those of fresh processes. An accelerator is used if there is one; nothing is downloaded. Ratios to TRL need
`pip install -e '.[bench]'`. Every single measurement goes into the file, which is written after each benchmark.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from transformers.utils.logging import disable_progress_bar

from benchmarks import decodings, machines, memories, mixes, own_runs, plugin_costs, scalings, steps
from benchmarks.ratios import LeftOut, Ratio
from benchmarks.settings import Settings
from benchmarks.tables import terminal_table
from fireopd.atomic_files import write_text
from fireopd.cli.main import quieten
from fireopd.errors import UserError

Benchmark = Callable[[Settings, Path], Iterator[Ratio | LeftOut]]
"""Yields ratios; the folder is a temporary one of its own."""

BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "trl": ("whole steps, in turns with TRL's", steps.against_trl),
    "naive": ("whole steps, in turns with a naive loop's", steps.against_naive),
    "dropping": ("updates with rows dropped", mixes.dropping),
    "teachers": ("scoring by one teacher and by four", mixes.teachers),
    "padding": ("tokens computed and real ones", mixes.padding),
    "plugins": ("filter, weighter and objective on a large batch", plugin_costs.plugins),
    "decoding": ("HFEngine in turns with model.generate", decodings.decoding),
    "speed": ("score and backward, three ways", memories.speed),
    "memory": ("peaks of score and backward, a process each", memories.memory),
}
"""What each is about, and what measures it, by name."""
OTHERS: dict[str, tuple[str, Callable[[Settings, Path], Iterator[tuple[str, dict[str, Any]]]]]] = {
    "own_run": ("time and memory of our embedded job", own_runs.own_run),
    "scaling": ("laws of scaling", scalings.laws),
}
"""What yields other results than ratios, by name, in sections of that name."""
NAMES = (*BENCHMARKS, *OTHERS)
"""All that can be asked for."""
QUIETENED = ("lightning.pytorch", "lightning.fabric")
"""Libraries that would say of every run what nobody can act on."""


def main() -> None:
    """Measure, write, print a table. What a user can mend is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=NAMES, help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--pairs", type=int, help="interleaved measurements of each side (default: 5)")
    parser.add_argument("--threads", type=int, help="threads of torch, for all sides (default: 1)")
    parser.add_argument("--memory-tokens", type=int, help="tokens that peaks of memory are for (default: 8192)")
    parser.add_argument(
        "--smollm2", type=Path, help="folder made by scripts/prepare_smollm2.py, to decode that model too"
    )
    parser.add_argument("--quick", action="store_true", help="the smallest sizes: a test, not a measurement")
    options = parser.parse_args()
    try:
        measure(options)
    except (UserError, OSError) as error:
        parser.exit(2, f"bench: {error}\n")


def measure(options: argparse.Namespace) -> None:
    """Run the benchmarks that were asked for."""
    settings = settings_of(options)
    torch.set_num_threads(settings.threads)
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # of the processes that are started
    quieten()
    for library in QUIETENED:
        logging.getLogger(library).setLevel(logging.WARNING)
    disable_progress_bar()
    console = Console()
    results: dict[str, Any] = {"machine": machines.describe(), "settings": settings.to_json()}
    results |= {"ratios": {}, "left_out": {}, **{name: {} for name in OTHERS}}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, TemporaryDirectory() as folder:
        for name in options.only:
            task = progress.add_task(f"{name}: {(BENCHMARKS | OTHERS)[name][0]}", total=None)
            for part in parts(name, settings, Path(folder, name)):
                for key, found in part.items():
                    results[key] |= found
                results["machine"]["load_after"] = os.getloadavg()[0]
                write_text(options.out, json.dumps(results, indent=1) + "\n")
            progress.update(task, total=1, completed=1)
    console.print(terminal_table(results))
    console.print(f"Written to {options.out}. python scripts/plot_bench.py {options.out} draws it.")


def parts(name: str, settings: Settings, folder: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the results of one benchmark as they come, by the section that they belong to."""
    folder.mkdir(parents=True)
    if name in OTHERS:
        for key, found in OTHERS[name][1](settings, folder):
            yield {name: {key: found}}
        return
    for found in BENCHMARKS[name][1](settings, folder):
        if isinstance(found, LeftOut):
            yield {"left_out": {found.name: found.reason}}
        else:
            yield {"ratios": {found.name: found.to_json()}}


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings that the options ask for.

    Raises:
        UserError: if a name is unknown, a number is out of range, or there is no such model or folder.
    """
    for name in options.only:
        if name not in NAMES:
            raise UserError("--only", name, "no such benchmark", f"the benchmarks are {', '.join(NAMES)}")
    if options.smollm2 and not (options.smollm2 / "model" / "config.json").is_file():
        remedy = "make it with python scripts/prepare_smollm2.py OUT"
        raise UserError("--smollm2", str(options.smollm2), "holds no model", remedy)
    if not options.out.absolute().parent.is_dir():
        raise UserError("--out", str(options.out), "no such folder", "make the folder first")
    given = {name: getattr(options, name) for name in ("pairs", "threads", "memory_tokens", "smollm2")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("pairs", "threads", "memory_tokens"):
        if given.get(name, 1) < 1:
            raise UserError(f"--{name.replace('_', '-')}", given[name], "out of range", "give at least 1")
    return Settings.quick(**given) if options.quick else Settings(**given)


if __name__ == "__main__":
    main()
