"""Limit of the time that Python code may take, regular expressions included."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["TimeLimitError", "time_limit"]


class TimeLimitError(BaseException):
    """The code took longer than its limit. `except Exception` of the code does not catch it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End a context that takes too long.

    There is a limit in the main thread of a POSIX system only, and only while no other code uses SIGALRM.

    Raises:
        TimeLimitError: after that time, and again every second until the context ends.
    """
    if not _alarm_is_free():
        yield
        return
    passed, active = False, True

    def stop(number: int, frame: FrameType | None) -> None:
        """Interrupt the code of the context, and nothing after it."""
        nonlocal passed
        passed = True
        if active:
            raise TimeLimitError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        active = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if passed:
        raise TimeLimitError


def _alarm_is_free() -> bool:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return False
    return signal.getsignal(signal.SIGALRM) == signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0
