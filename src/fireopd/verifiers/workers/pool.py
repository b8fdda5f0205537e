"""Pool of worker processes that may hang or crash: a worker that does not answer is replaced.

A worker is a new interpreter that imports one module and nothing else of fireopd: it has no torch, no threads, and no
variables, files or locks of the parent. It does not use `multiprocessing`, so the start method, a missing
`if __name__ == "__main__"` and other threads of the parent have no effect. A worker ends when the parent's end of its
channel is closed, so it also ends if the parent is killed.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from queue import LifoQueue
from typing import Any

from fireopd.errors import UserError
from fireopd.verifiers.workers import json_messages

__all__ = ["START", "START_TIMEOUT", "Pool", "Worker", "WorkerError", "pool"]

START_TIMEOUT = 60.0
"""Time limit for the start of a worker, seconds."""

START = """
import sys, types
for name, folder in (("fireopd", sys.argv[1]), ("fireopd.verifiers", sys.argv[1] + "/verifiers")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]  # skips __init__, which takes seconds
import importlib, socket
importlib.import_module(sys.argv[2]).work(socket.socket(fileno=0), sys.argv[3:])
"""
"""Program of a worker."""


class WorkerError(RuntimeError):
    """Failed start of a worker, with the last line of its output."""


class Worker:
    """Process that answers one message after another."""

    def __init__(self, module: str, settings: Sequence[str]) -> None:
        """Start the process.

        Args:
            module: module with a function `work(channel, settings)`, which sends one greeting and then answers
                messages until the channel is closed.
            settings: passed to `work`.

        Raises:
            WorkerError: if the worker does not start.
        """
        ours, theirs = socket.socketpair()
        folder = str(Path(__file__).parents[2])
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONHASHSEED": "0",  # answers depend on the order of sets
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},  # Python may need it
        }
        with tempfile.TemporaryFile() as errors, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, folder, module, *settings],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd="/",
                start_new_session=True,  # only the parent handles Ctrl-C
            )
            theirs.close()
            self.channel = ours
            try:
                self.greeting = json_messages.receive(ours, time.monotonic() + START_TIMEOUT)
            except (OSError, EOFError, ValueError) as error:
                self.close()
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip()[-500:]
                reason = output.splitlines()[-1] if output else type(error).__name__
                raise WorkerError(f"a worker of {module} did not start: {reason}") from error

    def ask(self, messages: Sequence[Any], seconds: float) -> Any:
        """Send messages and return the single answer to all of them.

        Raises:
            OSError, EOFError, ValueError: if the worker crashed, timed out, or sent an invalid answer; close it then.
        """
        deadline = time.monotonic() + seconds
        self.channel.settimeout(seconds)
        for message in messages:
            json_messages.send(self.channel, message)
        return json_messages.receive(self.channel, deadline)

    def close(self) -> None:
        """Kill the process."""
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Pool:
    """Thread-safe pool of up to `size` workers, started on demand."""

    def __init__(self, module: str, settings: Sequence[str], size: int) -> None:
        """Create an empty pool."""
        self.module, self.settings, self.size = module, tuple(settings), size
        self.idle: LifoQueue[Worker | None] = LifoQueue()
        for _ in range(size):
            self.idle.put(None)

    def check(self, key: str, value: str, remedy: str) -> None:
        """Check that a worker starts.

        Raises:
            UserError: for the setting, if no worker starts.
        """
        try:
            self.greeting()
        except WorkerError as error:
            raise UserError(key, value, str(error), remedy) from error

    def greeting(self) -> Any:
        """Return the first message of a worker.

        Raises:
            WorkerError: if no worker starts.
        """
        worker = self.idle.get()
        try:
            worker = worker or Worker(self.module, self.settings)
            return worker.greeting
        finally:
            self.idle.put(worker)

    def ask(self, messages: Sequence[Any], seconds: float) -> Any | None:
        """Return the answer of a worker, or None if it crashed, timed out, or sent an invalid answer.

        Raises:
            WorkerError: if a new worker does not start.
        """
        worker = self.idle.get()
        try:
            worker = worker or Worker(self.module, self.settings)
            return worker.ask(messages, seconds)
        except BaseException as error:  # also an interrupt: else the next question would receive this answer
            if worker is not None:
                worker.close()
            worker = None
            if not isinstance(error, OSError | EOFError | ValueError):
                raise
            return None
        finally:
            self.idle.put(worker)

    def ask_all(self, jobs: Iterable[Sequence[Any]], seconds: float) -> list[Any | None]:
        """Return the answers to several jobs in order."""
        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(lambda messages: self.ask(messages, seconds), jobs))


@lru_cache
def pool(module: str, settings: tuple[str, ...], size: int) -> Pool:
    """Return the pool of this process for a module and its settings."""
    return Pool(module, settings, size)


os.register_at_fork(after_in_child=pool.cache_clear)  # two processes must not share a channel
