"""Runs of fireopd in subprocesses: `python -m benchmarks.subprocess_runs`, with torchrun for several processes."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import fireopd_runs
from benchmarks.peak_memory import read_peak, reset_peak
from benchmarks.settings import Settings


def run_in_subprocess(
    arguments: Sequence[str], *, steps: int, processes: int = 1, median: int | None = None, settings: Settings
) -> dict[str, Any]:
    """Return the output of the first process of a run: logged scalars of each step, and its peak memory.

    Args:
        arguments: arguments of `fireopd fit`.
        steps: number of steps.
        processes: number of processes, with gloo or NCCL.
        median: median length of recorded rollouts, tokens; None for the engine of the arguments.
        settings: settings of the benchmarks.

    Raises:
        RuntimeError: if the run fails.
    """
    several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    launcher = several if processes > 1 else []
    sizes = [str(steps), str(settings.threads), str(median or 0)]
    command = [sys.executable, "-m", *launcher, "benchmarks.subprocess_runs", *sizes, "--", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{processes} process(es) exited with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(next(row for row in done.stdout.splitlines() if row.startswith("{")))


def main() -> None:
    """Run, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("median", type=int, help="median length of recorded rollouts, 0 to sample")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps: list[Mapping[str, float]] = []
    engine = fireopd_runs.recorded(Settings(), options.median) if options.median else None
    limit = ["--trainer.limit_train_batches", str(options.steps)]
    before = reset_peak()
    cli = fireopd_runs.run([*options.arguments, *limit], engine=engine, callbacks=[fireopd_runs.StepEnd(steps.append)])
    if cli.trainer.global_rank == 0:
        print(json.dumps({"steps": steps, "peak_bytes": read_peak(), "before_bytes": before}))


if __name__ == "__main__":
    main()
