"""Rollouts beside the training: the next batch is sampled in a thread of its own while this one is learnt from.

A rollout begins when a batch is handed to the trainer and is waited for before the engine takes new weights: it comes
from the weights that the student had before it learnt from that batch, and the thread runs during training steps alone.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, fields
from typing import Any

import torch

from fireopd.types import Prompt, RolloutBatch, Sampling

APART = ("prompts", "sampling")
"""What of a rollout is no tensor or number."""


class Overlap:
    """The rollout that is under way, or that waits to be taken."""

    def __init__(self) -> None:
        """Begin with none."""
        self.rollout: Future[RolloutBatch] | None = None
        self.number = -1
        self.waited = 0.0

    def begin(self, number: int, roll_out: Callable[[], RolloutBatch]) -> None:
        """Start a rollout; none may be under way.

        Args:
            number: of the batch.
            roll_out: samples it, without a word to other processes.
        """
        self.number, self.waited = number, 0.0
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        pool = ThreadPoolExecutor(1, "rollout")
        self.rollout = pool.submit(_on_device, device, roll_out)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until no rollout is under way."""
        if self.rollout is not None:
            began = time.perf_counter()
            wait([self.rollout])
            self.waited += time.perf_counter() - began

    def peek(self, number: int) -> RolloutBatch | None:
        """Return the rollout of this number once it is there; None if there is none, or if it failed."""
        if self.rollout is None or self.number != number:
            return None
        self.wait()
        return None if self.rollout.exception() else self.rollout.result()

    def take(self, number: int) -> RolloutBatch | None:
        """Return the rollout of this number once it is there, and forget it; None if there is none.

        Raises:
            Exception: what it failed of.
        """
        self.wait()
        rollout, self.rollout = self.rollout, None
        return rollout.result() if rollout is not None and self.number == number else None


def _on_device(device: int | None, roll_out: Callable[[], RolloutBatch]) -> RolloutBatch:
    if device is not None:
        torch.cuda.set_device(device)  # each thread has one of its own
    return roll_out()


def state_of(rollouts: RolloutBatch) -> dict[str, Any]:
    """Return what a checkpoint keeps of a rollout: tensors and plain values, and not its prompts."""
    kept = {f.name: getattr(rollouts, f.name) for f in fields(rollouts) if f.name not in APART}
    return kept | {"sampling": asdict(rollouts.sampling)}


def from_state(state: dict[str, Any], prompts: Sequence[Prompt]) -> RolloutBatch | None:
    """Return a rollout on its prompts, one for each row; None if it answers others: the run has other settings now."""
    rows = state["tokens"].tolist()
    if len(rows) != len(prompts):
        return None
    if any(tuple(row[: len(prompt.tokens)]) != prompt.tokens for row, prompt in zip(rows, prompts, strict=True)):
        return None
    return RolloutBatch(prompts=tuple(prompts), **(state | {"sampling": Sampling(**state["sampling"])}))
