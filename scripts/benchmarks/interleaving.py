"""Interleaved training loops: each runs in its own thread, one step at a time."""

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
    """Wall-clock time from the end of the previous step to the end of this one."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Scalars that the loop reports for the step."""
    processor_seconds: float = 0.0
    """CPU time of the process over all threads, which other load on the machine does not affect."""

    def per(self, number: int) -> "Step":
        """Return the step with its seconds divided by a number."""
        return Step(self.seconds / number, self.parts, self.processor_seconds / number)


Boundary = Callable[[Mapping[str, float]], None]
"""Function that a loop calls at the end of each step, with scalars about it."""


class OverError(BaseException):
    """Ends a loop; not an `Exception`, so that no handler in between catches it."""


class Loop:
    """Training loop that runs one step per call: `with Loop(run) as loop: loop.step()`.

    Only one loop runs at a time, so that several can be compared in one process.
    """

    def __init__(self, run: Callable[[Boundary], None]) -> None:
        """Store the function of the loop, which calls the boundary at the end of each step."""
        self.run = run
        self.go, self.done = threading.Event(), threading.Event()
        self.over, self.error = False, None
        self.parts: Mapping[str, float] = {}
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Loop":
        """Start the thread, which waits for the first step."""
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the loop at its boundary."""
        self.over = True
        self.go.set()
        self.thread.join()

    def step(self) -> Step:
        """Run the next step of the loop; raises the exceptions of the loop."""
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
            self.error = RuntimeError("the loop ended before its last step")
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
    """Synchronize with the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave_steps(loops: Sequence[Loop], *, warm_up: int, pairs: int) -> list[list[Step]]:
    """Return the steps of loops that alternate step by step, without the warm-up."""
    steps: list[list[Step]] = [[] for _ in loops]
    for turn in range(warm_up + pairs):
        order = range(len(loops)) if turn % 2 == 0 else reversed(range(len(loops)))
        for place in order:
            step = loops[place].step()
            if turn >= warm_up:
                steps[place].append(step)
    return steps


def timed(work: Callable[[], object]) -> Step:
    """Return the time of a function, including work on the accelerator."""
    wait()
    began, processor_began = time.perf_counter(), time.process_time()
    work()
    wait()
    return Step(time.perf_counter() - began, {}, time.process_time() - processor_began)


def ratio_of_steps(
    name: str, above: tuple[str, Sequence[Step]], below: tuple[str, Sequence[Step]], notes: str = "", unit: str = "s"
) -> Ratio:
    """Return the ratio of the seconds of steps, with the ratio of their CPU seconds in the details.

    Args:
        name: name of the ratio.
        above: description and steps of the numerator.
        below: description and steps of the denominator.
        notes: conditions of the measurement.
        unit: unit of the seconds.
    """
    sides = [Side(what, unit, tuple(step.seconds for step in steps)) for what, steps in (above, below)]
    pairs = zip(above[1], below[1], strict=True)
    processor = [one.processor_seconds / other.processor_seconds for one, other in pairs]
    return Ratio(name, *sides, notes, {"of_processor_seconds": {**spread(processor), "each": processor}})
