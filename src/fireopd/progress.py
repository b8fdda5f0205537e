"""Progress reports of long-running loops to a listener, such as a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["Listener", "report", "set_listener", "track"]

T = TypeVar("T")
Listener = Callable[[str, int, int], None]
"""Function of the name of a task, the number of finished items, and the total number of items."""


class _State:
    """The listener of this process."""

    listener: Listener | None = None


def set_listener(listener: Listener | None) -> None:
    """Send all reports of this process to a listener, which replaces the previous one. None disables reports."""
    _State.listener = listener


def track(items: Sequence[T], name: str) -> Iterator[T]:
    """Yield the items and report the number of finished ones. A loop that ends early is reported as complete.

    Args:
        items: items of the loop.
        name: name of the task, such as `rollout`.
    """
    try:
        for finished, item in enumerate(items):
            report(name, finished, len(items))
            yield item
    finally:
        report(name, len(items), len(items))


def report(name: str, finished: int, total: int) -> None:
    """Report the number of finished items to the listener, if there is one."""
    if _State.listener is not None:
        _State.listener(name, finished, total)
