"""Runs of the program in processes of their own, to be stopped and killed.

A server that has imported everything forks them, so that a run starts within a second.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fireopd.cli.training_cli", "lightning.pytorch.loggers.tensorboard", "transformers"])
PROMPTS = ["--data.prompts.num_training=64", "--data.prompts.num_validation=4", "--data.batch_size=8"]
SHORT = ["--config=configs/multi_teacher.yaml", "--data.validation_responses=1", *PROMPTS]
"""Eight steps of eight, some seconds."""


def main(arguments: list[str], log: Path, before) -> None:
    """Be the program: in a process group of its own, everything that it says in a file."""
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from fireopd.cli import main

    torch.set_num_threads(1)
    if before is not None:
        before()
    sys.argv = ["fireopd", *arguments]
    main.main()


class HoldAtStep:
    """Holds a run while its teachers score the batch of a step, until a signal arrives."""

    def __init__(self, folder: Path, step: int) -> None:
        self.reached, self.step = folder / "held", step

    def __call__(self) -> None:
        from fireopd.training.module import FiReOPDModule

        score = FiReOPDModule.score

        def hold(module, *arguments):
            if module.policy_version == self.step:
                self.reached.touch()
                time.sleep(600)
            return score(module, *arguments)

        FiReOPDModule.score = hold


class Run:
    """A run of `fireopd fit` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, before=None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / f"{len(list(folder.glob('*.log')))}.log"
        own = [*arguments, f"--trainer.default_root_dir={folder}"]
        self.process = CONTEXT.Process(target=main, args=(["fit", *SHORT, *own], self.log, before))
        self.process.start()

    def wait(self, seconds: float = 600) -> int:
        """Return the exit code; a run that hangs is killed and fails the test."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.send(signal.SIGKILL)
            raise TimeoutError(self.said)
        return self.process.exitcode

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # the run has ended by itself
            os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.join()

    def until(self, happened, seconds: float = 300) -> bool:
        """Wait until something has happened, or the run has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.is_alive():
            if happened():
                return True
            time.sleep(0.001)
        return bool(happened())

    @property
    def said(self) -> str:
        return self.log.read_text()

    def checkpoints(self) -> list[Path]:
        """Return the last checkpoint of each start in this folder."""
        return list(self.folder.glob("version_*/checkpoints/last.ckpt"))
