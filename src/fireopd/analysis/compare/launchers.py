"""Launchers of the runs of a comparison: what starts, watches and stops a run."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from typing import IO

from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.atomic_files import writing

__all__ = ["Job", "Launcher", "LocalJob", "LocalLauncher"]


class Job(ABC):
    """Started run.

    Args:
        run: planned run.
    """

    def __init__(self, run: PlannedRun) -> None:
        """Store the run and the start time."""
        self.run = run
        self.started = time.monotonic()

    @abstractmethod
    def exit_code(self) -> int | None:
        """Return the exit code of `fireopd fit`; None while the run is active."""

    @abstractmethod
    def stop(self) -> None:
        """Send SIGTERM to the run, so that it saves a checkpoint and ends."""

    @abstractmethod
    def kill(self) -> None:
        """End the run at once."""


class Launcher(ABC):
    """Starts runs."""

    @abstractmethod
    def start(self, run: PlannedRun, lock: IO) -> Job:
        """Start a run, or resume it from its last checkpoint.

        Args:
            run: unfinished run.
            lock: open lock of the folder of the comparison.

        Raises:
            UserError: if a file cannot be written.
        """


class LocalJob(Job):
    """Run in a subprocess, the leader of its own session.

    Args:
        run: planned run.
        process: process of `fireopd fit`.
    """

    def __init__(self, run: PlannedRun, process: subprocess.Popen) -> None:
        """Store run and process."""
        super().__init__(run)
        self.process = process

    def exit_code(self) -> int | None:
        """Return the exit code of the process; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Send SIGTERM to the process."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its children."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class LocalLauncher(Launcher):
    """Starts runs as subprocesses, which share the threads.

    Args:
        jobs: number of runs at a time.
    """

    def __init__(self, jobs: int) -> None:
        """Store the number of runs."""
        self.jobs = jobs

    def start(self, run: PlannedRun, lock: IO) -> LocalJob:
        """Start a subprocess. It inherits the lock, which stays locked if the comparison is killed."""
        command = run.command()
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, threads() // self.jobs))}
        with writing("--out", run.folder):
            run.prepare()
            log = run.log.open("a")
        with log:
            # In a new session, so that Ctrl-C reaches only this process.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, pass_fds=[lock.fileno()]
            )
        return LocalJob(run, process)


def threads() -> int:
    """Return the total number of threads for all runs: OMP_NUM_THREADS, or the number of usable cores."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))
