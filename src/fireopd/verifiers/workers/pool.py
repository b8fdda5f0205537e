"""Worker processes that may hang or die: each does one job at a time, and is replaced if it does not answer.

A worker is a fresh interpreter that loads one module and nothing else of fireopd: no torch, no threads, none of the
parent's variables, files or locks. It is no child of `multiprocessing`, so that it does not matter how the program was
started, whether it is guarded by `if __name__ == "__main__"`, or what runs in other threads. It ends when the parent's
end of its channel closes, that is with the parent, however that ends.
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

PATIENCE = 60.0
"""Seconds that a worker may take to start."""

START = """
import sys, types
for name, folder in (("fireopd", sys.argv[1]), ("fireopd.verifiers", sys.argv[1] + "/verifiers")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]  # a package whose __init__, which takes seconds, does not run
import importlib, socket
importlib.import_module(sys.argv[2]).work(socket.socket(fileno=0), sys.argv[3:])
"""


class WorkerError(RuntimeError):
    """Says of which module a worker did not start, and what it said last."""


class Worker:
    """A process that answers one message after another."""

    def __init__(self, module: str, settings: Sequence[str]) -> None:
        """Start it.

        Args:
            module: has `work(channel, settings)`, which says what it is, once, and then answers until the channel ends.
            settings: given to it.

        Raises:
            WorkerError: if it does not start.
        """
        ours, theirs = socket.socketpair()
        folder = str(Path(__file__).parents[2])
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONHASHSEED": "0",  # the order of sets is part of an answer
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},  # Python's own, at times
        }
        with tempfile.TemporaryFile() as errors, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, folder, module, *settings],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C is the parent's
            )
            theirs.close()
            self.channel = ours
            try:
                self.told = json_messages.receive(ours, time.monotonic() + PATIENCE)
            except (OSError, EOFError, ValueError) as error:
                self.close()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-500:]
                said = said.splitlines()[-1] if said else type(error).__name__
                raise WorkerError(f"a worker of {module} did not start: {said}") from error

    def ask(self, messages: Sequence[Any], seconds: float) -> Any:
        """Send messages and return the one answer to all of them.

        Raises:
            OSError, EOFError, ValueError: if it died, took longer, or answered garbage; it is of no use any more.
        """
        deadline = time.monotonic() + seconds
        self.channel.settimeout(seconds)
        for message in messages:
            json_messages.send(self.channel, message)
        return json_messages.receive(self.channel, deadline)

    def close(self) -> None:
        """Kill it."""
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Pool:
    """Up to `size` workers, started when they are needed, that any number of threads can ask."""

    def __init__(self, module: str, settings: Sequence[str], size: int) -> None:
        """Start nothing yet."""
        self.module, self.settings, self.size = module, tuple(settings), size
        self.idle: LifoQueue[Worker | None] = LifoQueue()
        for _ in range(size):
            self.idle.put(None)

    def check(self, key: str, value: str, remedy: str) -> None:
        """Check that a worker starts.

        Raises:
            UserError: that names a setting, its value and the remedy, if it does not.
        """
        try:
            self.told()
        except WorkerError as error:
            raise UserError(key, value, str(error), remedy) from error

    def told(self) -> Any:
        """Return what a worker says of itself.

        Raises:
            WorkerError: if it does not start.
        """
        worker = self.idle.get()
        try:
            worker = worker or Worker(self.module, self.settings)
            return worker.told
        finally:
            self.idle.put(worker)

    def ask(self, messages: Sequence[Any], seconds: float) -> Any | None:
        """Return a worker's answer, or None if it came to nothing.

        Raises:
            WorkerError: if a new worker does not start.
        """
        worker = self.idle.get()
        try:
            worker = worker or Worker(self.module, self.settings)
            return worker.ask(messages, seconds)
        except BaseException as error:  # also an interrupt: the answer would be taken for that to the next question
            if worker is not None:
                worker.close()
            worker = None
            if not isinstance(error, OSError | EOFError | ValueError):
                raise
            return None
        finally:
            self.idle.put(worker)

    def ask_all(self, jobs: Iterable[Sequence[Any]], seconds: float) -> list[Any | None]:
        """Return the answers to several jobs, in their order."""
        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(lambda messages: self.ask(messages, seconds), jobs))


@lru_cache
def pool(module: str, settings: tuple[str, ...], size: int) -> Pool:
    """Return this process's pool for a module and its settings."""
    return Pool(module, settings, size)


os.register_at_fork(after_in_child=pool.cache_clear)  # two processes cannot share a channel
