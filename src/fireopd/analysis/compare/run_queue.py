"""Training the runs of a comparison: some at a time, each in a process of its own; what was stopped goes on."""

import fcntl
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

from fireopd.analysis.compare.run_plan import PlannedRun
from fireopd.atomic_files import make_folder
from fireopd.errors import UserError

PATIENCE = 120.0
"""Seconds that a run has to save a checkpoint after it was told to stop."""
POLL = 0.2
"""Seconds between two looks at what runs."""


@dataclass(frozen=True)
class Job:
    """A run that is going on."""

    run: PlannedRun
    """Which one."""
    process: subprocess.Popen
    """`fireopd fit`."""
    began: float
    """When, by the monotonic clock."""


class RunQueue:
    """Trains planned runs. A run that fails is noted, and the others go on.

    Args:
        jobs: runs at a time.
        console: shows what is going on.
    """

    def __init__(self, jobs: int, console: Console) -> None:
        """Store the settings."""
        self.jobs, self.console = jobs, console
        self.active: list[Job] = []
        self.seconds: list[float] = []
        self.failed: list[PlannedRun] = []

    def train(self, runs: Sequence[PlannedRun], out: Path) -> list[PlannedRun]:
        """Train those that are not finished; return those that failed.

        Raises:
            KeyboardInterrupt: on Ctrl-C or SIGTERM, when every run has stopped and left a checkpoint where it could.
            UserError: if another comparison is at work in the folder.
        """
        waiting = [run for run in runs if not run.finished]
        columns = [BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        progress = Progress(*columns, console=self.console, transient=True)
        bar = progress.add_task("", total=len(runs), completed=len(runs) - len(waiting))
        with locked(out) as lock, terminable(), progress:
            try:
                while waiting or self.active:
                    while waiting and len(self.active) < self.jobs:
                        self.active.append(self._start(waiting.pop(0), lock))
                    progress.update(bar, description=self._description(len(waiting)))
                    time.sleep(POLL)
                    progress.advance(bar, self._collect())
            finally:
                self._stop()
        return self.failed

    def _start(self, run: PlannedRun, lock: IO) -> Job:
        command = run.command()
        run.prepare()
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, threads() // self.jobs))}
        with run.log.open("a") as log:
            # A session of its own, so that Ctrl-C reaches this process alone; the lock lives as long as any run does.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, pass_fds=[lock.fileno()]
            )
        return Job(run, process, time.monotonic())

    def _collect(self) -> int:
        """Take the runs that have ended out of those that are going on; return how many there were."""
        ended = [job for job in self.active if job.process.poll() is not None]
        for job in ended:
            self.active.remove(job)
            if job.process.returncode == 0 and job.run.finished:
                self.seconds.append(time.monotonic() - job.began)
                self.console.print(f"{job.run.name}: finished in {self.seconds[-1]:.0f} s", highlight=False)
            else:
                self.failed.append(job.run)
                self.console.print(f"{job.run.name}: failed (exit code {job.process.returncode})", highlight=False)
        return len(ended)

    def _description(self, waiting: int) -> str:
        """Return what runs now and, once a run has ended, how long the rest will take."""
        names = ", ".join(job.run.name for job in self.active)
        if not self.seconds:
            return names
        spent = sum(time.monotonic() - job.began for job in self.active)
        left = max(0.0, fmean(self.seconds) * (waiting + len(self.active)) - spent) / self.jobs
        return f"{names}; about {left / 60:.0f} min left"

    def _stop(self) -> None:
        """Tell the runs that are going on to save and stop, and wait for them; end those that do not."""
        for job in self.active:
            job.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for job in self.active:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()


def threads() -> int:
    """Return the threads that there are to share out: OMP_NUM_THREADS, or one for each core that may be used."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


def log_tail(run: PlannedRun, lines: int = 12) -> str:
    """Return the last lines of a run's log."""
    return "\n".join(run.log.read_text(errors="replace").rstrip().splitlines()[-lines:])


@contextmanager
def locked(out: Path) -> Iterator[IO]:
    """Hold the folder's lock file, which runs inherit: two comparisons in one folder would write into the same runs."""
    make_folder(out)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = "another comparison, or a run of one, is at work here"
            raise UserError("--out", str(out), problem, "wait for it, stop it, or give another folder") from error
        yield lock


@contextmanager
def terminable() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
