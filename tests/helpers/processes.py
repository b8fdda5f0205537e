"""Commands of the program in processes of their own, to be stopped and killed.

A server that has imported everything forks them, so that a run starts within a second.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing as mp
from helpers.fakes import free_port

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "fireopd.cli.commands.check",
        "fireopd.cli.commands.compare",
        "fireopd.cli.commands.export",
        "fireopd.cli.training_cli",
        "fireopd.distributed.fsdp",
        "lightning.pytorch.loggers.tensorboard",
        "transformers",
        "transformers.models.qwen3.modeling_qwen3",
        "pytest",
    ]
)
PROMPTS = ["--data.prompts.num_training=64", "--data.prompts.num_validation=4", "--data.batch_size=8"]
SHORT = ["--config=configs/multi_teacher.yaml", "--data.validation_responses=1", *PROMPTS]
SHORT += ["--data.engine.max_response_length=32"]
"""Eight steps of eight, some seconds."""


def write_to(log: Path) -> None:
    """Begin a process group, and write all output to a file."""
    os.setsid()
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def main(arguments: list[str], log: Path, folder: Path | None, environment: dict[str, str], before) -> None:
    """Run the program."""
    write_to(log)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets the jobs in its background ignore it
    if folder is not None:
        os.chdir(folder)
    os.environ |= environment
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    from fireopd.cli import main

    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))  # set when Lightning is imported
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


class Program:
    """A command of the program, on one process or on several that train together."""

    def __init__(self, log: Path, *arguments: str, folder: Path | None = None, devices: int = 1, before=None) -> None:
        self.log = log
        environments = [{}]
        if devices > 1:  # as a launcher sets them
            shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(devices)}
            environments = [shared | {"NODE_RANK": "0", "LOCAL_RANK": str(rank)} for rank in range(devices)]
        given = [str(argument) for argument in arguments]
        self.processes = [
            CONTEXT.Process(target=main, args=(given, log, folder, environment, before)) for environment in environments
        ]
        for process in self.processes:
            process.start()

    @property
    def process(self):
        """The first process."""
        return self.processes[0]

    @property
    def running(self) -> list:
        """Processes that have not ended."""
        return [process for process in self.processes if process.exitcode is None]

    def wait(self, seconds: float = 600) -> int:
        """Return the exit code of the first process; a run that hangs is killed and fails the test."""
        end = time.monotonic() + seconds
        while (running := self.running) and time.monotonic() < end:
            running[0].join(0.1)
            if any(process.exitcode for process in self.processes):  # the others wait for it, but not for ever
                end = min(end, time.monotonic() + 60)
        if running:
            self.kill()
            raise TimeoutError(self.said)
        return self.process.exitcode

    def send(self, number: int) -> None:
        """Send a signal to the first process."""
        with contextlib.suppress(ProcessLookupError):  # the run has ended by itself
            os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.join()

    def kill(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

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


class Run(Program):
    """A short run of `fireopd fit`."""

    def __init__(self, folder: Path, *arguments: str, before=None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        own = [*SHORT, *arguments, f"--trainer.default_root_dir={folder}"]
        super().__init__(folder / f"{len(list(folder.glob('*.log')))}.log", "fit", *own, before=before)

    def checkpoints(self) -> list[Path]:
        """Return the last checkpoint of each start in this folder."""
        return list(self.folder.glob("version_*/checkpoints/last.ckpt"))


def in_two_processes(function, *arguments) -> None:
    """Call a function with the rank and the arguments in two processes, which are a group of `torch.distributed`."""
    mp.start_processes(call_in_group, (free_port(), function, arguments), nprocs=2, start_method="forkserver")


def call_in_group(rank, port, function, arguments) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    function(rank, *arguments)
    dist.destroy_process_group()


def in_a_process(folder: Path, path: list[Path], function, *arguments) -> tuple[int, str]:
    """Call a function in a folder, with more places to import from; return the exit code and the output."""
    log = folder / "log"
    process = CONTEXT.Process(target=call_in, args=(folder, [str(place) for place in path], log, function, arguments))
    process.start()
    process.join(600)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(log.read_text())
    return process.exitcode, log.read_text()


def call_in(folder, path, log, function, arguments) -> None:
    write_to(log)
    os.chdir(folder)
    sys.path[:0] = path
    os.environ["PYTHONPATH"] = os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])
    function(*arguments)
