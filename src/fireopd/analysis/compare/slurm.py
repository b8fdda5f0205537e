"""Launcher that submits the runs of a comparison as jobs of SLURM, by submitit."""

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission

from fireopd.analysis.compare.launchers import Job, Launcher
from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.atomic_files import write_text, writing
from fireopd.errors import UserError

__all__ = ["SlurmJob", "SlurmLauncher", "TrainingJob", "slurm_executor"]

ACTIVE = frozenset({"PENDING", "RUNNING", "REQUEUED", "SUSPENDED"})
"""States of a job of an earlier comparison that is still going to train."""
REFUSED = frozenset({"nodes", "ntasks_per_node", "array_parallelism", "map_count"})
"""Options without a meaning for a run on one node."""
POLL_INTERVAL = 0.5
"""Seconds between two checks of the process."""
SAVING_TIMEOUT = 80.0
"""Seconds to save a checkpoint; submitit's signal comes 90 s before the time limit."""


class TrainingJob:
    """Function that a job calls: trains a run in a subprocess, and resumes it after a requeue.

    Args:
        run: planned run.
    """

    def __init__(self, run: PlannedRun) -> None:
        """Store the run."""
        self.run = run
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Train, or resume from the last checkpoint, and return the exit code."""
        # Lightning takes the variables of SLURM for one process per GPU; here it starts its processes itself.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        with self.run.log.open("a") as log:
            self.process = subprocess.Popen(self.run.command(), stdout=log, stderr=log, env=environment)
        while (code := self.process.poll()) is None:
            time.sleep(POLL_INTERVAL)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """Stop the process, which saves a checkpoint, and return the job to requeue; called by submitit."""
        deadline = time.monotonic() + SAVING_TIMEOUT
        if self.process is not None:
            self.process.terminate()
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL)
        return DelayedSubmission(TrainingJob(self.run))


class SlurmJob(Job):
    """Run in a job of SLURM.

    Args:
        run: planned run.
        job: job of submitit.
    """

    def __init__(self, run: PlannedRun, job: submitit.Job[int]) -> None:
        """Store run and job."""
        super().__init__(run)
        self.job = job
        self.code: int | None = None

    def exit_code(self) -> int | None:
        """Return the exit code of `fireopd fit`, 1 for a job that ended otherwise; None while the job is active."""
        if self.code is None and self.job.done():
            self.code = self._final_code()
        return self.code

    def _final_code(self) -> int:
        """Return the exit code of a job that is done, and log the reason if it has none."""
        if self.job.exception() is None:
            return self.job.result()
        with self.run.log.open("a") as log:
            log.write(
                f"job {self.job.job_id} of SLURM ended with state {self.job.state}; see {self.job.paths.stderr}\n"
            )
        return 1

    def stop(self) -> None:
        """Cancel the job; SLURM sends SIGTERM to all its processes."""
        self.job.cancel(check=False)

    def kill(self) -> None:
        """Leave the job to SLURM, which kills the processes of a cancelled job after its own time limit."""


class SlurmLauncher(Launcher):
    """Submits each run as a job; one that is preempted or reaches its time limit saves a checkpoint and is requeued.

    Args:
        executor: executor that submits the jobs.
    """

    def __init__(self, executor: submitit.Executor) -> None:
        """Store the executor."""
        self.executor = executor

    def start(self, run: PlannedRun, lock: IO) -> SlurmJob:
        """Submit a job, or watch that of an earlier comparison which is still active.

        Raises:
            UserError: if SLURM refuses the job, or a file cannot be written.
        """
        record = run.folder / "slurm_job"
        if record.exists():
            earlier = self.executor.job_class(folder=self.executor.folder, job_id=record.read_text().strip())
            if earlier.state.partition(" ")[0] in ACTIVE:
                return SlurmJob(run, earlier)
        try:
            with writing("--out", run.folder):
                run.prepare()
                job = self.executor.submit(TrainingJob(run))
                write_text(record, f"{job.job_id}\n")
        except FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError("--slurm", run.name, f"SLURM refuses the job: {reason}", "change its options") from error
        return SlurmJob(run, job)


def slurm_executor(folder: Path, options: Mapping[str, str]) -> submitit.SlurmExecutor:
    """Return an executor for jobs of one node.

    Args:
        folder: folder of scripts and output of the jobs, visible to all nodes.
        options: options of `sbatch` by name, with underscores; `time` in minutes is required.

    Raises:
        UserError: if SLURM is not installed, or an option is missing, unknown or refused.
    """
    for name in REFUSED & options.keys():
        raise UserError("--slurm", name, "a run of a comparison is one task on one node", "leave the option out")
    for name in (name for name, value in options.items() if not value):
        raise UserError("--slurm", name, "it has no value", "write OPTION=VALUE")
    if not options.get("time", "").isdecimal():
        raise UserError("--slurm", options.get("time", ""), "jobs need a time limit", "add time=MINUTES")
    try:
        executor = submitit.SlurmExecutor(folder)
    except RuntimeError as error:  # srun is missing
        remedy = "run the command on a login node of SLURM, or leave --slurm out"
        raise UserError("--slurm", "srun", "not installed on this machine", remedy) from error
    numbers = {"job_name": "fireopd"} | {
        name: int(value) if value.isdecimal() else value for name, value in options.items()
    }
    try:
        executor.update_parameters(**numbers)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        remedy = "use options of sbatch, such as partition, gpus_per_node, cpus_per_task, mem, account, qos"
        raise UserError("--slurm", " ".join(options), reason, remedy) from error
    return executor
