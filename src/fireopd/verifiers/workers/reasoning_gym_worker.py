"""What a worker of `ReasoningGymVerifier` does: draw a problem once more, and have its task grade an answer.

Some graders work an answer out, and `9**9**9` is soon written: `serve` keeps the time.
"""

import json
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import reasoning_gym

from fireopd.verifiers.workers.service import serve

MEMORY = 2**32
"""Bytes of address space that a worker may take."""


def work(channel: socket.socket, settings: Sequence[str]) -> None:
    """Grade answers, each to the problem that is told with it, until the channel ends."""
    [timeout] = settings
    serve(channel, grade, seconds=float(timeout), memory=MEMORY)


def grade(problem: dict[str, Any], answer: str) -> float:
    """Return the task's grade in [0, 1]; some tasks give part of it for answers of the right form."""
    tasks = problems(problem["task"], json.dumps(problem["settings"]), problem["seed"], problem["size"])
    entry = tasks[problem["index"]]
    try:
        reward = float(tasks.score_answer(answer, entry))
    except Exception:  # some graders stumble over an answer that they cannot read
        return 0.0
    return min(max(reward, 0.0), 1.0)


@lru_cache(maxsize=256)
def problems(task: str, settings: str, seed: int, size: int) -> Any:
    """Return the problems of a task; each is drawn when it is asked for, the same in every process."""
    return reasoning_gym.create_dataset(task, seed=seed, size=size, **json.loads(settings))
