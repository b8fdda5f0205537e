"""Ends of commands on Ctrl-C and SIGTERM."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ended_at_once", "terminable"]


@contextmanager
def ended_at_once() -> Iterator[None]:
    """End on Ctrl-C or SIGTERM without an exception, which libraries turn into other errors while they are imported."""

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # Python refuses handlers elsewhere
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    caught = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, end) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """End with an exception on SIGTERM, so that temporary files and other processes are removed."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the removal
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # Python refuses handlers elsewhere
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
