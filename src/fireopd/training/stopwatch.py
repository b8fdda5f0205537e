"""Where the time of a step goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds by name: `with watch("update"): ...`, then `watch.seconds`."""

    def __init__(self, **seconds: float) -> None:
        """Start at nothing, but for what was measured elsewhere."""
        self.seconds: defaultdict[str, float] = defaultdict(float, seconds)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of a block, work on a GPU included."""
        _wait()
        began = time.perf_counter()
        yield
        _wait()
        self.seconds[name] += time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
