"""What a worker does that answers questions, each within its time."""

import logging
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

from fireopd.verifiers.workers import json_messages


def serve(channel: socket.socket, answer: Callable[..., Any], *, seconds: float, memory: int) -> None:
    """Answer messages until the channel ends.

    A timer of the kernel's ends the process where an answer takes too long: an alarm of Python's would wait for as long
    as a computation in C goes on. It counts computing time, so that a busy machine changes no grade.

    Args:
        channel: to whoever asks.
        answer: takes the parts of a message, and returns what is sent back.
        seconds: of computing time that an answer may take.
        memory: bytes of address space that the process may take.
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
        found = answer(*parts)
        signal.setitimer(signal.ITIMER_PROF, 0)
        json_messages.send(channel, found)
