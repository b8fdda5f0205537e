"""Stopwatch for the parts of a step."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Adds up seconds by name: `with watch("update"): ...`, then `watch.seconds`."""

    def __init__(self, **seconds: float) -> None:
        """Start at 0, or at the given seconds by name."""
        self.seconds: defaultdict[str, float] = defaultdict(float, seconds)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds of a `with` block, work on a GPU included."""
        _wait()
        began = time.perf_counter()
        yield
        _wait()
        self.seconds[name] += time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
