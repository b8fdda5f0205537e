"""Runs on two processes with sharded models, to be stopped and resumed."""

import os
import signal
import subprocess
import sys
import time

import torch
from helpers.paths import TESTS

from fireopd.training import checkpoint_files

COMMAND = [sys.executable, "-m", "fireopd", "fit", "--config=configs/multi_teacher.yaml"]
COMMAND += ["--config=configs/hardware/fsdp.yaml", "--trainer.devices=2", "--trainer.limit_val_batches=0"]
EVERY_STEP = "{class_path: RunCheckpoint, init_args: {every_n_train_steps: 1}}"
COMMAND += [f"--trainer.callbacks=[{EVERY_STEP}, helpers.memory_recorder.Holdings]"]
COMMAND += ["--data.prompts.num_training=70", "--data.prompts.num_validation=2", "--data.batch_size=7"]


class Pair:
    """A run on two processes."""

    def __init__(self, folder, *arguments):
        folder.mkdir(exist_ok=True)
        self.folder, self.log = folder, folder / f"{len(list(folder.glob('*.log')))}.log"
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*COMMAND, f"--trainer.default_root_dir={folder}", *arguments],
            stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )  # fmt: skip

    def until_step(self, step):
        end = time.monotonic() + 600
        while step_of(self.folder) < step:
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)

    def wait(self):
        try:
            return self.process.wait(600)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def step_of(folder):
    """Return the step of the last checkpoint that is whole, 0 if there is none."""
    try:
        return torch.load(checkpoint_files.last_checkpoint(folder) / "meta.pt", weights_only=True)["global_step"]
    except (checkpoint_files.UserError, FileNotFoundError):  # none yet, or moved away while it was looked at
        return 0
