"""Rollouts that overlap with training: a thread samples the next batch during the step on the current one.

A rollout starts when the trainer takes a batch, and ends before the engine takes new weights. It comes from the weights
before the update on that batch. The thread runs during training steps only.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, fields
from typing import Any

import torch

from fireopd.types import Prompt, RolloutBatch, Sampling

__all__ = ["BackgroundRollout", "rollout_from_state", "rollout_state"]

STRUCTURED = ("prompts", "sampling", "recorded")
"""Fields of a rollout that are neither tensors nor numbers."""


class BackgroundRollout:
    """The rollout of the next batch, in progress or complete."""

    def __init__(self) -> None:
        """Create without a rollout."""
        self.rollout: Future[RolloutBatch] | None = None
        self.number = -1
        self.waited = 0.0

    def start(self, number: int, roll_out: Callable[[], RolloutBatch]) -> None:
        """Start a rollout; no other rollout may be in progress.

        Args:
            number: number of the batch.
            roll_out: samples the batch, without collective operations.
        """
        self.number, self.waited = number, 0.0
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        pool = ThreadPoolExecutor(1, "rollout")
        self.rollout = pool.submit(_on_device, device, roll_out)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait for the running rollout, if there is one."""
        if self.rollout is not None:
            began = time.perf_counter()
            wait([self.rollout])
            self.waited += time.perf_counter() - began

    def peek(self, number: int) -> RolloutBatch | None:
        """Wait for the rollout of this number and return it; None if there is none, or if it failed."""
        if self.rollout is None or self.number != number:
            return None
        self.wait()
        return None if self.rollout.exception() else self.rollout.result()

    def get(self, number: int) -> RolloutBatch | None:
        """Wait for the rollout of this number and return it; None if there is none.

        Raises:
            Exception: the error that the rollout failed with.
        """
        self.wait()
        return self.rollout.result() if self.rollout is not None and self.number == number else None

    def discard(self) -> None:
        """Wait for the running rollout, and forget it."""
        self.wait()
        self.rollout = None


def _on_device(device: int | None, roll_out: Callable[[], RolloutBatch]) -> RolloutBatch:
    if device is not None:
        torch.cuda.set_device(device)  # the current device is a setting of the thread
    return roll_out()


def rollout_state(rollouts: RolloutBatch) -> dict[str, Any]:
    """Return the state of a rollout for a checkpoint: tensors and plain values, without the prompts."""
    state = {f.name: getattr(rollouts, f.name) for f in fields(rollouts) if f.name not in STRUCTURED}
    return state | {"sampling": asdict(rollouts.sampling)}


def rollout_from_state(state: dict[str, Any], prompts: Sequence[Prompt]) -> RolloutBatch | None:
    """Return the rollout of a checkpoint with its prompts, one per row.

    None if its tokens start with other prompts, as after a change of the run's settings.
    """
    rows = state["tokens"].tolist()
    if len(rows) != len(prompts):
        return None
    if any(tuple(row[: len(prompt.tokens)]) != prompt.tokens for row, prompt in zip(rows, prompts, strict=True)):
        return None
    return RolloutBatch(prompts=tuple(prompts), **(state | {"sampling": Sampling(**state["sampling"])}))
