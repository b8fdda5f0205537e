"""How far long work has come: whoever does it counts, and whoever wants to show it listens."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], None]
"""Is told what is done, how many of its parts are finished, and how many there are."""


class _Audience:
    """Who listens: one at a time, in this process."""

    listener: Listener | None = None


def set_listener(listener: Listener | None) -> None:
    """Tell a listener of all work from now on; None for nobody."""
    _Audience.listener = listener


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items, and report how many are finished; work that ends early is finished too.

    Args:
        items: parts of the work.
        what: a word for it, such as `rollout`.
    """
    try:
        for number, item in enumerate(items):
            report(what, number, len(items))
            yield item
    finally:
        report(what, len(items), len(items))


def report(what: str, finished: int, total: int) -> None:
    """Tell how much of some work is finished."""
    if _Audience.listener is not None:
        _Audience.listener(what, finished, total)
