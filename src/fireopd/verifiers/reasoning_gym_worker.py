"""What a worker of `ReasoningGymVerifier` does: draw a problem once more, and have its task grade an answer.

Some graders work an answer out, and `9**9**9` is soon written. A timer of the kernel's, which counts computing time,
ends the process where that takes too long.
"""

import json
import logging
import resource
import signal
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import reasoning_gym

from fireopd.verifiers import frames

MEMORY = 2**32
"""Bytes of address space that a worker may take."""


def work(channel: socket.socket, settings: Sequence[str]) -> None:
    """Grade answers, each to the problem that is told with it, until the channel ends."""
    [timeout] = settings
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    frames.send(channel, "ready")
    while True:
        try:
            problem, answer = frames.receive(channel)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, float(timeout))
        reward = grade(answer, problem)
        signal.setitimer(signal.ITIMER_PROF, 0)
        frames.send(channel, reward)


def grade(answer: str, problem: dict[str, Any]) -> float:
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
