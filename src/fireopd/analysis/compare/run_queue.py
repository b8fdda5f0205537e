"""Queue that trains the runs of a comparison in subprocesses, several at a time, and resumes stopped runs."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.atomic_files import locked, make_folder, writing

__all__ = ["Job", "RunQueue", "log_tail"]

STOP_TIMEOUT = 120.0
"""Seconds that a run has to save a checkpoint after SIGTERM, before it is killed."""
POLL_INTERVAL = 0.2
"""Seconds between two checks of the running processes."""


@dataclass(frozen=True)
class Job:
    """Running process of a planned run."""

    run: PlannedRun
    """Planned run."""
    process: subprocess.Popen
    """Process of `fireopd fit`."""
    started: float
    """Start time on the monotonic clock, seconds."""


class RunQueue:
    """Queue that trains planned runs. A failed run does not stop the others.

    Args:
        jobs: number of runs at a time.
        console: console for the progress bar and messages.
    """

    def __init__(self, jobs: int, console: Console) -> None:
        """Store the settings."""
        self.jobs, self.console = jobs, console
        self.active: list[Job] = []
        self.seconds: list[float] = []
        self.failed: list[PlannedRun] = []

    def train(self, runs: Sequence[PlannedRun], out: Path) -> list[PlannedRun]:
        """Train all unfinished runs and return the failed ones.

        Raises:
            KeyboardInterrupt: on Ctrl-C or SIGTERM, after all runs have stopped.
            UserError: if another comparison is using the folder, or a file cannot be written.
        """
        waiting = [run for run in runs if not run.finished]
        columns = [BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        progress = Progress(*columns, console=self.console, transient=True)
        bar = progress.add_task("", total=len(runs), completed=len(runs) - len(waiting))
        make_folder(out)
        problem = "another comparison, or a run of one, is using this folder"
        remedy = "wait for it, stop it, or use another folder"
        with locked("--out", out, problem, remedy) as lock, terminable(), progress:
            try:
                while waiting or self.active:
                    while waiting and len(self.active) < self.jobs:
                        self.active.append(self._start(waiting.pop(0), lock))
                    progress.update(bar, description=self._description(len(waiting)))
                    time.sleep(POLL_INTERVAL)
                    progress.advance(bar, self._collect())
            finally:
                self._stop()
        return self.failed

    def _start(self, run: PlannedRun, lock: IO) -> Job:
        command = run.command()
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, threads() // self.jobs))}
        with writing("--out", run.folder):
            run.prepare()
            log = run.log.open("a")
        with log:
            # In a new session, so that Ctrl-C reaches only this process. The run inherits the lock.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, pass_fds=[lock.fileno()]
            )
        return Job(run, process, time.monotonic())

    def _collect(self) -> int:
        """Remove ended runs from the active ones and return their number."""
        ended = [job for job in self.active if job.process.poll() is not None]
        for job in ended:
            self.active.remove(job)
            if job.process.returncode == 0 and job.run.finished:
                self.seconds.append(time.monotonic() - job.started)
                self.console.print(f"{job.run.name}: finished in {self.seconds[-1]:.0f} s", highlight=False)
            else:
                self.failed.append(job.run)
                self.console.print(f"{job.run.name}: failed (exit code {job.process.returncode})", highlight=False)
        return len(ended)

    def _description(self, waiting: int) -> str:
        """Return the names of the active runs and, after the first finished run, the estimated remaining time."""
        names = ", ".join(job.run.name for job in self.active)
        if not self.seconds:
            return names
        spent = sum(time.monotonic() - job.started for job in self.active)
        left = max(0.0, fmean(self.seconds) * (waiting + len(self.active)) - spent) / self.jobs
        return f"{names}; about {left / 60:.0f} min left"

    def _stop(self) -> None:
        """Send SIGTERM to all active runs, so that they save a checkpoint; kill those that do not stop in time."""
        for job in self.active:
            job.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        for job in self.active:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()


def threads() -> int:
    """Return the total number of threads for all runs: OMP_NUM_THREADS, or the number of usable cores."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


def log_tail(run: PlannedRun, lines: int = 12) -> str:
    """Return the last lines of a run's log."""
    return "\n".join(run.log.read_text(errors="replace").rstrip().splitlines()[-lines:])


@contextmanager
def terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
