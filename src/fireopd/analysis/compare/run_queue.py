"""Queue that trains the runs of a comparison, several at a time, and resumes stopped runs."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fireopd.analysis.compare.launchers import Job, Launcher, LocalLauncher
from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.atomic_files import locked, make_folder

__all__ = ["RunQueue", "log_tail"]

STOP_TIMEOUT = 120.0
"""Seconds that a run has to save a checkpoint after SIGTERM, before it is killed."""
POLL_INTERVAL = 0.2
"""Seconds between two checks of the running processes."""


class RunQueue:
    """Queue that trains planned runs. A failed run does not stop the others.

    Args:
        jobs: number of runs at a time.
        console: console for the progress bar and messages.
        launcher: starts the runs; by default as subprocesses that share the threads.
    """

    def __init__(self, jobs: int, console: Console, launcher: Launcher | None = None) -> None:
        """Store the settings."""
        self.jobs, self.console = jobs, console
        self.launcher = launcher or LocalLauncher(jobs)
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
        with locked("--out", out, problem, remedy) as lock, _noted_signals() as interrupt, progress:
            try:
                while waiting or self.active:
                    while waiting and len(self.active) < self.jobs:
                        interrupt()
                        self.active.append(self.launcher.start(waiting.pop(0), lock))
                    progress.update(bar, description=self._description(len(waiting)))
                    time.sleep(POLL_INTERVAL)
                    interrupt()
                    progress.advance(bar, self._collect())
            finally:
                self._stop()
        return self.failed

    def _collect(self) -> int:
        """Remove ended runs from the active ones and return their number."""
        ended = [(job, code) for job in self.active if (code := job.exit_code()) is not None]
        for job, code in ended:
            self.active.remove(job)
            if code == 0 and job.run.finished:
                self.seconds.append(time.monotonic() - job.started)
                self.console.print(f"{job.run.name}: finished in {self.seconds[-1]:.0f} s", highlight=False)
            else:
                self.failed.append(job.run)
                self.console.print(f"{job.run.name}: failed (exit code {code})", highlight=False)
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
        """Stop all active runs, so that they save a checkpoint; kill those that do not stop in time."""
        for job in self.active:
            job.stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(job.exit_code() is None for job in self.active) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        for job in self.active:
            if job.exit_code() is None:
                job.kill()


def log_tail(run: PlannedRun, lines: int = 12) -> str:
    """Return the last lines of a run's log."""
    return "\n".join(run.log.read_text(errors="replace").rstrip().splitlines()[-lines:])


@contextmanager
def _noted_signals() -> Iterator[Callable[[], None]]:
    """Context in which Ctrl-C and SIGTERM are noted, so that no run is started and not recorded.

    It yields a function that raises `KeyboardInterrupt` after a signal. A second signal raises it at once.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        """Note a signal."""
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    def interrupt() -> None:
        """Raise after a signal."""
        if received:
            raise KeyboardInterrupt

    numbers = [own for own in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(own) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
