"""A run of ours in processes of its own, one or several: `python -m benchmarks.processes`, by torchrun if several."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import jobs
from benchmarks.memories import read_peak, reset_peak
from benchmarks.settings import Settings


def run_apart(
    arguments: Sequence[str], *, steps: int, processes: int = 1, median: int | None = None, settings: Settings
) -> dict[str, Any]:
    """Return what the first process of a run tells: what each step logs, and the peak of its memory.

    Args:
        arguments: of `fireopd fit`.
        steps: to make.
        processes: that share the rows, with gloo or NCCL.
        median: median length of recorded rollouts, tokens; none to have the engine of the arguments sample.
        settings: of the benchmarks.

    Raises:
        RuntimeError: if the run failed.
    """
    several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    launcher = several if processes > 1 else []
    sizes = [str(steps), str(settings.threads), str(median or 0)]
    command = [sys.executable, "-m", *launcher, "benchmarks.processes", *sizes, "--", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{processes} process(es) ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(next(row for row in done.stdout.splitlines() if row.startswith("{")))


def main() -> None:
    """Make the run, and print what it tells as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("median", type=int, help="median length of recorded rollouts, 0 to sample")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps: list[Mapping[str, float]] = []
    engine = jobs.recorded(Settings(), options.median) if options.median else None
    limit = ["--trainer.limit_train_batches", str(options.steps)]
    before = reset_peak()
    cli = jobs.run([*options.arguments, *limit], engine=engine, callbacks=[jobs.StepEnd(steps.append)])
    if cli.trainer.global_rank == 0:
        print(json.dumps({"steps": steps, "peak_bytes": read_peak(), "before_bytes": before}))


if __name__ == "__main__":
    main()
