"""Loop of a worker process, with limits on time and memory."""

import logging
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

from fireopd.verifiers.workers import json_messages

__all__ = ["serve"]


def serve(channel: socket.socket, answer: Callable[..., Any], *, seconds: float, memory: int) -> None:
    """Answer messages until the channel is closed.

    A kernel timer ends the process if an answer takes too long: Python would handle a signal only after a running
    computation in C. The timer counts CPU time, so that the load of the machine does not affect grades.

    Args:
        channel: connection to the parent process.
        answer: function from the parts of a message to the answer.
        seconds: CPU time limit per answer.
        memory: limit of the address space, bytes.
    """
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    json_messages.send(channel, "ready")
    while True:
        try:
            parts = json_messages.receive(channel)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        result = answer(*parts)
        signal.setitimer(signal.ITIMER_PROF, 0)
        json_messages.send(channel, result)
