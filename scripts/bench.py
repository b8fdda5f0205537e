"""Speed and memory of fireopd compared with other trainers: `python scripts/bench.py --out bench.json`.

The two sides of a ratio alternate step by step in one process, so that other load on the machine affects both. Peak
memory is measured in new processes. An accelerator is used if available; nothing is downloaded. Ratios to TRL require
`pip install -e '.[bench]'`. The output file contains every measurement and is written after each benchmark.
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

from benchmarks import (
    decoding,
    embedded_job,
    length_mix,
    machine,
    peak_memory,
    plugin_cost,
    scaling_laws,
    training_steps,
)
from benchmarks.ratios import LeftOut, Ratio
from benchmarks.settings import Settings
from benchmarks.tables import terminal_table
from fireopd.atomic_files import write_text
from fireopd.cli.main import quieten
from fireopd.errors import UserError

Benchmark = Callable[[Settings, Path], Iterator[Ratio | LeftOut]]
"""Function that yields ratios, given the settings and a temporary folder."""

BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "trl": ("whole steps, interleaved with TRL", training_steps.against_trl),
    "naive": ("whole steps, interleaved with a naive loop", training_steps.against_naive),
    "dropping": ("updates with dropped rows", length_mix.dropping),
    "teachers": ("scoring by one teacher and by four", length_mix.teachers),
    "padding": ("computed tokens and tokens without padding", length_mix.padding),
    "plugins": ("filter, weighter and objective on a large batch", plugin_cost.plugins),
    "decoding": ("HFEngine, interleaved with model.generate", decoding.decoding),
    "speed": ("scoring and backward, three implementations", peak_memory.speed),
    "memory": ("peak memory of scoring and backward", peak_memory.memory),
}
"""Description and function of each benchmark of ratios, by name."""
OTHERS: dict[str, tuple[str, Callable[[Settings, Path], Iterator[tuple[str, dict[str, Any]]]]]] = {
    "own_run": ("time and memory of the embedded job", embedded_job.own_run),
    "scaling": ("scaling laws", scaling_laws.laws),
}
"""Description and function of the other benchmarks; the name is the section of the results."""
NAMES = (*BENCHMARKS, *OTHERS)
"""Names of all benchmarks."""
QUIETENED = ("lightning.pytorch", "lightning.fabric")
"""Loggers whose messages about each run are suppressed."""


def main() -> None:
    """Run the benchmarks, write the results and print a table; exit with code 2 for invalid options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=NAMES, help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--pairs", type=int, help="interleaved measurements of each side (default: 5)")
    parser.add_argument("--threads", type=int, help="torch threads, for all sides (default: 1)")
    parser.add_argument("--memory-tokens", type=int, help="tokens for the measurement of peak memory (default: 8192)")
    parser.add_argument(
        "--smollm2", type=Path, help="folder written by scripts/prepare_smollm2.py, to also measure that model"
    )
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for tests only")
    options = parser.parse_args()
    try:
        measure(options)
    except (UserError, OSError) as error:
        parser.exit(2, f"bench: {error}\n")


def measure(options: argparse.Namespace) -> None:
    """Run the selected benchmarks and write the results after each."""
    settings = settings_of(options)
    torch.set_num_threads(settings.threads)
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # for subprocesses
    quieten()
    for library in QUIETENED:
        logging.getLogger(library).setLevel(logging.WARNING)
    disable_progress_bar()
    console = Console()
    results: dict[str, Any] = {"machine": machine.describe(), "settings": settings.to_json()}
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
    """Yield the results of one benchmark, by section, as soon as they are available."""
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
    """Return the settings for the options.

    Raises:
        UserError: if a name is unknown, a number is out of range, or a model or folder does not exist.
    """
    for name in options.only:
        if name not in NAMES:
            raise UserError("--only", name, "unknown benchmark", f"the benchmarks are {', '.join(NAMES)}")
    if options.smollm2 and not (options.smollm2 / "model" / "config.json").is_file():
        remedy = "write it with python scripts/prepare_smollm2.py OUT"
        raise UserError("--smollm2", str(options.smollm2), "contains no model", remedy)
    if not options.out.absolute().parent.is_dir():
        raise UserError("--out", str(options.out), "the folder does not exist", "create it first")
    given = {name: getattr(options, name) for name in ("pairs", "threads", "memory_tokens", "smollm2")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("pairs", "threads", "memory_tokens"):
        if given.get(name, 1) < 1:
            raise UserError(f"--{name.replace('_', '-')}", given[name], "out of range", "give at least 1")
    return Settings.quick(**given) if options.quick else Settings(**given)


if __name__ == "__main__":
    main()
