"""Rollouts that overlap with training: a thread samples the next batches during the steps on the current ones.

A rollout of N batches starts when the trainer takes the first of the N batches before them, and ends before the engine
takes new weights: all its tokens come from the same weights, whatever the speed of the engine. The thread runs during
training steps only.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, fields
from typing import Any

import torch

from fireopd.types import Prompt, RolloutBatch, Sampling

__all__ = ["RolloutQueue", "largest_staleness", "next_block", "rollout_from_state", "rollout_state"]

STRUCTURED = ("prompts", "sampling", "recorded")
"""Fields of a rollout that are neither tensors nor numbers."""


def next_block(place: int, batches: int, overlap: int) -> range:
    """Return the places of the batches whose rollout starts when the batch at a place is taken; empty for most.

    Args:
        place: place of a batch in its epoch. The first one is sampled without overlap.
        batches: batches of the epoch.
        overlap: number of batches that are sampled together, 0 for none.
    """
    if overlap == 0 or (place > 0 and (place - 1) % overlap):
        return range(0)
    first = 1 if place == 0 else place + overlap
    return range(first, min(first + overlap, batches))


def largest_staleness(overlap: int, updates: int) -> int:
    """Return the largest age of a batch in optimizer steps: the N batches before it, and those before it of its own N.

    Args:
        overlap: number of batches that are sampled together, 0 for none.
        updates: optimizer steps of a batch.
    """
    return max(2 * overlap - 1, 0) * updates


class RolloutQueue:
    """Batches that are sampled and not taken, and the rollout in progress."""

    def __init__(self) -> None:
        """Create an empty queue."""
        self.ready: dict[int, RolloutBatch] = {}
        self.rollout: Future[list[RolloutBatch]] | None = None
        self.numbers = range(0)
        self.since = -1
        self.waited = 0.0

    def start(self, numbers: range, since: int, roll_out: Callable[[], list[RolloutBatch]]) -> None:
        """Start a rollout; no other rollout may be in progress.

        Args:
            numbers: numbers of its batches.
            since: number of the batch whose step runs at the same time first.
            roll_out: samples the batches, without collective operations.
        """
        assert self.rollout is None, "one rollout at a time"
        self.numbers, self.since = numbers, since
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        pool = ThreadPoolExecutor(1, "rollout")
        self.rollout = pool.submit(_on_device, device, roll_out)
        pool.shutdown(wait=False)

    def knows(self, number: int) -> bool:
        """Return whether the batch of this number is sampled, or being sampled."""
        return number in self.ready or (self.rollout is not None and number in self.numbers)

    def wait(self) -> None:
        """Wait for the running rollout, if there is one."""
        if self.rollout is not None:
            began = time.perf_counter()
            wait([self.rollout])
            self.waited += time.perf_counter() - began

    def take(self, number: int) -> tuple[RolloutBatch, float] | None:
        """Remove the batch of this number, waiting for its rollout; None if there is none.

        Returns:
            The batch, and the seconds that training waited since it took the batch before.

        Raises:
            Exception: the error that its rollout failed with.
        """
        if self.rollout is not None and number in self.numbers:
            self._collect()
        batch, waited, self.waited = self.ready.pop(number, None), self.waited, 0.0
        return None if batch is None else (batch, waited)

    def pending(self, number: int, learned: int) -> list[RolloutBatch]:
        """Return the batches from this number on that a checkpoint has to hold, waiting for their rollout.

        A rollout that started with the present weights is left out: a resumed run samples the same one. So are batches
        whose rollout failed.

        Args:
            number: number of the first batch that was not taken.
            learned: number of the batches that the student has learned from.
        """
        if self.rollout is not None and self.since < learned:
            self.wait()
            if self.rollout.exception() is None:
                self._collect()
        found = []
        while number in self.ready:
            found.append(self.ready[number])
            number += 1
        return found

    def discard(self) -> None:
        """Wait for the running rollout, and forget all batches."""
        self.wait()
        self.ready, self.rollout, self.waited = {}, None, 0.0

    def _collect(self) -> None:
        """Wait for the running rollout and keep its batches."""
        self.wait()
        assert self.rollout is not None
        rollout, self.rollout = self.rollout, None
        self.ready |= {batch.number: batch for batch in rollout.result()}


def _on_device(device: int | None, roll_out: Callable[[], list[RolloutBatch]]) -> list[RolloutBatch]:
    if device is not None:
        torch.cuda.set_device(device)  # the current device is a setting of the thread
    return roll_out()


def rollout_state(rollouts: RolloutBatch) -> dict[str, Any]:
    """Return the state of a rollout for a checkpoint: tensors and plain values, without the prompts."""
    state = {f.name: getattr(rollouts, f.name) for f in fields(rollouts) if f.name not in STRUCTURED}
    return state | {"sampling": asdict(rollouts.sampling)}


def rollout_from_state(state: dict[str, Any], prompts: Sequence[Prompt], first_group: int) -> RolloutBatch | None:
    """Return the rollout of a checkpoint with its prompts.

    None if its tokens start with other prompts, as after a change of the run's settings.

    Args:
        state: from `rollout_state`.
        prompts: prompts of the batch, in order.
        first_group: group number of the first prompt.
    """
    places = (state["groups"] - first_group).tolist()
    if set(places) != set(range(len(prompts))):
        return None
    rows, of = state["tokens"].tolist(), [prompts[place] for place in places]
    if any(tuple(row[: len(prompt.tokens)]) != prompt.tokens for row, prompt in zip(rows, of, strict=True)):
        return None
    return RolloutBatch(prompts=tuple(of), **(state | {"sampling": Sampling(**state["sampling"])}))
