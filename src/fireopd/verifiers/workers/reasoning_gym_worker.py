"""Worker of `ReasoningGymVerifier`: draws a problem again and grades an answer with the grader of the task.

Some graders evaluate the answer, which may be as expensive as `9**9**9`: `serve` enforces the time limit.
"""

import json
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import reasoning_gym

from fireopd.verifiers.workers.worker_loop import serve

__all__ = ["grade", "problems", "work"]

MEMORY = 2**32
"""Limit of the address space of a worker, bytes."""


def work(channel: socket.socket, settings: Sequence[str]) -> None:
    """Grade pairs of problem and answer until the channel is closed."""
    [timeout] = settings
    serve(channel, grade, seconds=float(timeout), memory=MEMORY)


def grade(problem: dict[str, Any], answer: str) -> float:
    """Return the reward of the task in [0, 1]."""
    tasks = problems(problem["task"], json.dumps(problem["settings"]), problem["seed"], problem["size"])
    entry = tasks[problem["index"]]
    try:
        reward = float(tasks.score_answer(answer, entry))
    except Exception:  # some graders raise on answers that they cannot parse
        return 0.0
    return min(max(reward, 0.0), 1.0)


@lru_cache(maxsize=256)
def problems(task: str, settings: str, seed: int, size: int) -> Any:
    """Return the problems of a task, drawn on access and the same in every process."""
    return reasoning_gym.create_dataset(task, seed=seed, size=size, **json.loads(settings))
