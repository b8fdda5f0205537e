"""Peak memory and time of scoring and backward.

Each peak is measured by a new process, `python -m benchmarks.peak_memory`. On a CPU, it is the peak of the resident
memory (Linux `VmHWM`) above the resident memory after a warm-up on a few tokens; on an accelerator, that of the
allocator.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from benchmarks.interleaving import ratio_of_steps, timed
from benchmarks.machine import free_memory
from benchmarks.ratios import LeftOut, Ratio, Side, interleave
from benchmarks.scoring_variants import WAYS, accumulate_gradient, workload
from benchmarks.settings import Settings
from benchmarks.trl_trainer import missing

PLAIN_COPIES = 6
"""Copies of the logits that must fit into memory to run the plain implementation, which holds five."""


def memory(settings: Settings, folder: Path) -> Iterator[Ratio | LeftOut]:
    """Yield the peak of the plain implementation over the chunked one, and of the chunked one over TRL's kernel."""
    yield attempt("memory_plain_over_chunked", "plain", "chunked", settings)
    name = "memory_fireopd_over_trl_kernel"
    yield missing(name) or attempt(name, "chunked", "trl_kernel", settings)


def attempt(name: str, above: str, below: str, settings: Settings) -> Ratio | LeftOut:
    """Return the peak of one implementation over that of another, if both can be measured."""
    try:
        (first, how_first), (second, how_second) = (
            peak_or_extrapolation(above, settings),
            peak_or_extrapolation(below, settings),
        )
    except subprocess.CalledProcessError as error:
        end = (error.stderr.strip().splitlines() or ["killed, possibly out of memory"])[-1]
        return LeftOut(name, f"the process that measured {error.cmd[-1]} exited with {error.returncode}: {end}")
    what = f"peak of scoring + backward, {settings.memory_tokens} tokens, V = {settings.vocabulary}"
    sides = [Side(f"{what}: {way}", "bytes", (size,)) for way, size in ((above, first), (below, second))]
    return Ratio(name, *sides, f"above model and gradients; {above} {how_first}, {below} {how_second}")


def peak_or_extrapolation(way: str, settings: Settings) -> tuple[float, str]:
    """Return the peak of an implementation, bytes, and a description of its source.

    If memory is too small for the plain implementation, its peak is extrapolated linearly from those at an eighth and a
    quarter of the tokens: only its copies of the logits grow with the tokens.
    """
    tokens = settings.memory_tokens
    if way != "plain" or free_memory() > PLAIN_COPIES * 4 * tokens * settings.vocabulary:
        return float(peak(way, tokens, settings)), "measured"
    low, high = peak(way, tokens // 8, settings), peak(way, tokens // 4, settings)
    slope = (high - low) / (tokens // 4 - tokens // 8)
    return high + slope * (tokens - tokens // 4), f"extrapolated from {tokens // 8} and {tokens // 4} tokens"


@cache
def peak(way: str, tokens: int, settings: Settings) -> int:
    """Return the peak of an implementation, bytes, measured by a new process."""
    sizes = [tokens, settings.vocabulary, settings.vocabulary_width, settings.threads]
    command = [sys.executable, "-m", "benchmarks.peak_memory", *map(str, sizes), way]
    place = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def speed(settings: Settings, folder: Path) -> Iterator[Ratio | LeftOut]:
    """Yield the time of the chunked implementation over the plain one and over TRL's kernel."""
    sizes = {"width": settings.vocabulary_width, "vocabulary": settings.vocabulary, "device": settings.device}
    model, tokens = workload(settings.time_tokens, **sizes)
    reason = missing("time_chunked_over_trl_kernel")
    names = ["chunked", "plain", *([] if reason else ["trl_kernel"])]
    sides = [lambda way=WAYS[name]: timed(lambda: accumulate_gradient(way, model, tokens)) for name in names]
    for side in sides:
        side()
    ours, *others = interleave(settings.pairs, sides)
    what = f"scoring + backward, {settings.time_tokens} tokens, V = {settings.vocabulary}"
    for name, values in zip(names[1:], others, strict=True):
        yield ratio_of_steps(f"time_chunked_over_{name}", (f"{what}: chunked", ours), (f"{what}: {name}", values))
    if reason:
        yield reason


def main() -> None:
    """Measure the peak of one implementation in this process, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tokens", "vocabulary", "width", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("way", choices=WAYS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = Settings().device
    model, tokens = workload(options.tokens, width=options.width, vocabulary=options.vocabulary, device=device)
    way = WAYS[options.way]
    accumulate_gradient(way, model, tokens[:1, :16])  # warm-up
    gc.collect()
    before = reset_peak()
    accumulate_gradient(way, model, tokens)
    print(json.dumps({"peak": read_peak() - before}))


def reset_peak() -> int:
    """Reset the peak to the current memory and return the latter, bytes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def read_peak() -> int:
    """Return the peak since the last reset, bytes."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else status("VmHWM")


def status(field: str) -> int:
    """Return a size from /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) * 1024


if __name__ == "__main__":
    main()
