"""Rendezvous of the processes of a run, which Ctrl-C and SIGTERM end.

A process waits for the others inside PyTorch, where no handler of Python runs: after a signal to all, one could
wait for the others, which have ended, until the timeout of the strategy.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.strategies import Strategy

__all__ = ["ending_on_signals"]

MESSAGE = "fireopd: stopped before training; start again with the same command"
NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending_on_signals(strategy: Strategy) -> Iterator[None]:
    """Context in which signals end this process while it joins the process group: 130 on Ctrl-C, 143 on SIGTERM.

    Processes that this one has launched get the signal, too.

    Args:
        strategy: strategy of the trainer, whose `setup_environment` joins the group.
    """
    strategy.setup_environment = _Join(strategy)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del strategy.setup_environment  # that of its class


class _Join:
    """`setup_environment` of a strategy, watched; an object, since a launcher may send the strategy elsewhere."""

    def __init__(self, strategy: Strategy) -> None:
        """Store the strategy."""
        self.strategy = strategy

    def __call__(self) -> None:
        """Join the process group."""
        with _watched(self.strategy.launcher):
            type(self.strategy).setup_environment(self.strategy)


@contextmanager
def _watched(launcher: Any) -> Iterator[None]:
    """Context in which a thread receives the signals; those that are ignored stay ignored."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    received, written = socket.socketpair()
    written.setblocking(False)
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(received, launcher), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        written.close()


def _end(received: socket.socket, launcher: Any) -> None:
    """Wait for a signal, and end the process; return when the context has ended."""
    with received:
        while number := received.recv(1):
            if number[0] in NUMBERS:
                if launcher is not None:
                    launcher.kill(number[0])
                print(MESSAGE, file=sys.stderr, flush=True)
                os._exit(128 + number[0])
