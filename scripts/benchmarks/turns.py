"""Training loops that take turns: each runs in a thread of its own, and only while it has been given a step."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import torch

from benchmarks.ratios import Ratio, Side, spread


@dataclass(frozen=True)
class Step:
    """One step of a training loop."""

    seconds: float
    """From the end of the step before to the end of this one."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the loop itself says about the step."""
    processor_seconds: float = 0.0
    """Of this process, on all threads: what a loaded machine does not stretch."""

    def per(self, number: int) -> "Step":
        """Return the seconds for each of so many things."""
        return Step(self.seconds / number, self.parts, self.processor_seconds / number)


Boundary = Callable[[Mapping[str, float]], None]
"""Called by a loop at the end of each of its steps, with what it has to say."""


class OverError(BaseException):
    """Ends a loop that gets no more turns; no `Exception`, so that nothing in between takes it for a fault."""


class Loop:
    """A training loop that makes a step when it is asked to: `with Loop(run) as loop: loop.step()`.

    No two loops run at the same time, so that they can be compared in one process.
    """

    def __init__(self, run: Callable[[Boundary], None]) -> None:
        """Take the loop: it calls the boundary at the end of each step. It starts with the first step."""
        self.run = run
        self.go, self.done = threading.Event(), threading.Event()
        self.over, self.error = False, None
        self.parts: Mapping[str, float] = {}
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Loop":
        """Start the thread, which waits."""
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the loop at the boundary where it waits."""
        self.over = True
        self.go.set()
        self.thread.join()

    def step(self) -> Step:
        """Let the loop run to the end of its next step; raise what it raises."""
        wait()
        began, processor_began = time.perf_counter(), time.process_time()
        self.done.clear()
        self.go.set()
        self.done.wait()
        if self.error is not None:
            raise self.error
        return Step(time.perf_counter() - began, self.parts, time.process_time() - processor_began)

    def _work(self) -> None:
        try:
            self._rest()
            self.run(self._boundary)
            self.error = RuntimeError("the loop came to its end before its last turn")
        except OverError:
            pass
        except BaseException as error:
            self.error = error
        self.done.set()

    def _boundary(self, parts: Mapping[str, float]) -> None:
        wait()
        self.parts = dict(parts)
        self.done.set()
        self._rest()

    def _rest(self) -> None:
        self.go.wait()
        self.go.clear()
        if self.over:
            raise OverError


def wait() -> None:
    """Wait for what an accelerator still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def race(loops: Sequence[Loop], *, warm_up: int, pairs: int) -> list[list[Step]]:
    """Return the steps of some loops that took turns, step by step, those of the warm-up left out."""
    steps: list[list[Step]] = [[] for _ in loops]
    for turn in range(warm_up + pairs):
        order = range(len(loops)) if turn % 2 == 0 else reversed(range(len(loops)))
        for place in order:
            step = loops[place].step()
            if turn >= warm_up:
                steps[place].append(step)
    return steps


def timed(work: Callable[[], object]) -> Step:
    """Return the time that something takes, work on an accelerator included."""
    wait()
    began, processor_began = time.perf_counter(), time.process_time()
    work()
    wait()
    return Step(time.perf_counter() - began, {}, time.process_time() - processor_began)


def ratio_of_steps(
    name: str, above: tuple[str, Sequence[Step]], below: tuple[str, Sequence[Step]], notes: str = "", unit: str = "s"
) -> Ratio:
    """Return the ratio of the seconds of some steps, with that of their processor seconds among the details.

    Args:
        name: of the ratio.
        above: what the steps above the line are, and they.
        below: the same of those below the line.
        notes: on the ratio.
        unit: of the seconds.
    """
    sides = [Side(what, unit, tuple(step.seconds for step in steps)) for what, steps in (above, below)]
    pairs = zip(above[1], below[1], strict=True)
    processor = [one.processor_seconds / other.processor_seconds for one, other in pairs]
    return Ratio(name, *sides, notes, {"of_processor_seconds": {**spread(processor), "each": processor}})
