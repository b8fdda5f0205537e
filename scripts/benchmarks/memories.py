"""Peak memory and time of score and backward. Each peak is that of a fresh process: `python -m benchmarks.memories`.

On a CPU it is the peak of the resident memory (`VmHWM` of Linux, which is set back before) above what
was resident, after a warm-up on a few tokens; on an accelerator that of the allocator.
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

from benchmarks.machines import free_memory
from benchmarks.ratios import LeftOut, Ratio, Side, in_turns
from benchmarks.scorings import WAYS, learn, workload
from benchmarks.settings import Settings
from benchmarks.trl_trainers import missing
from benchmarks.turns import ratio_of_steps, timed

PLAIN_COPIES = 6
"""Copies of the logits that there must be room for before the plain way is tried; it holds five."""


def memory(settings: Settings, folder: Path) -> Iterator[Ratio | LeftOut]:
    """Yield the peak of the plain way over ours, and ours over that of TRL's kernel."""
    yield attempt("memory_plain_over_chunked", "plain", "chunked", settings)
    name = "memory_fireopd_over_trl_kernel"
    yield missing(name) or attempt(name, "chunked", "trl_kernel", settings)


def attempt(name: str, above: str, below: str, settings: Settings) -> Ratio | LeftOut:
    """Return the peak of one way over that of another, if both could be measured."""
    try:
        (first, how_first), (second, how_second) = peak_or_line(above, settings), peak_or_line(below, settings)
    except subprocess.CalledProcessError as error:
        end = (error.stderr.strip().splitlines() or ["killed, perhaps for want of memory"])[-1]
        return LeftOut(name, f"the process that measured {error.cmd[-1]} ended with {error.returncode}: {end}")
    what = f"peak of score + backward, {settings.memory_tokens} tokens, V = {settings.vocabulary}"
    sides = [Side(f"{what}: {way}", "bytes", (size,)) for way, size in ((above, first), (below, second))]
    return Ratio(name, *sides, f"above model and gradients; {above} {how_first}, {below} {how_second}")


def peak_or_line(way: str, settings: Settings) -> tuple[float, str]:
    """Return the bytes of the peak of a way at the tokens of the settings, and how they are known.

    Where there is no room for the plain way, its peak lies on the line through those at an eighth and a quarter of the
    tokens: it holds some copies of the logits, and nothing else that grows.
    """
    tokens = settings.memory_tokens
    if way != "plain" or free_memory() > PLAIN_COPIES * 4 * tokens * settings.vocabulary:
        return float(peak(way, tokens, settings)), "measured"
    low, high = peak(way, tokens // 8, settings), peak(way, tokens // 4, settings)
    slope = (high - low) / (tokens // 4 - tokens // 8)
    return high + slope * (tokens - tokens // 4), f"extrapolated from {tokens // 8} and {tokens // 4} tokens"


@cache
def peak(way: str, tokens: int, settings: Settings) -> int:
    """Return the bytes of the peak of a way, measured by a fresh process."""
    sizes = [tokens, settings.vocabulary, settings.vocabulary_width, settings.threads]
    command = [sys.executable, "-m", "benchmarks.memories", *map(str, sizes), way]
    place = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def speed(settings: Settings, folder: Path) -> Iterator[Ratio | LeftOut]:
    """Yield the time of ours over the plain way's, and over that of TRL's kernel, where the plain way fits."""
    sizes = {"width": settings.vocabulary_width, "vocabulary": settings.vocabulary, "device": settings.device}
    model, tokens = workload(settings.time_tokens, **sizes)
    reason = missing("time_chunked_over_trl_kernel")
    names = ["chunked", "plain", *([] if reason else ["trl_kernel"])]
    sides = [lambda way=WAYS[name]: timed(lambda: learn(way, model, tokens)) for name in names]
    for side in sides:
        side()
    ours, *others = in_turns(settings.pairs, sides)
    what = f"score + backward, {settings.time_tokens} tokens, V = {settings.vocabulary}"
    for name, values in zip(names[1:], others, strict=True):
        yield ratio_of_steps(f"time_chunked_over_{name}", (f"{what}: chunked", ours), (f"{what}: {name}", values))
    if reason:
        yield reason


def main() -> None:
    """Measure one way's peak in this process, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tokens", "vocabulary", "width", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("way", choices=WAYS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = Settings().device
    model, tokens = workload(options.tokens, width=options.width, vocabulary=options.vocabulary, device=device)
    way = WAYS[options.way]
    learn(way, model, tokens[:1, :16])  # loads what is loaded at the first call
    gc.collect()
    before = reset_peak()
    learn(way, model, tokens)
    print(json.dumps({"peak": read_peak() - before}))


def reset_peak() -> int:
    """Set the peak back to what is held now, and return that, bytes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def read_peak() -> int:
    """Return the most that was held since, bytes."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else status("VmHWM")


def status(field: str) -> int:
    """Return a size that Linux tells of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) * 1024


if __name__ == "__main__":
    main()
