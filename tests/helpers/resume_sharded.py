"""Runs on two processes with sharded models, to be stopped and resumed."""

import os
import subprocess
import sys

import torch
from helpers.paths import TESTS
from helpers.processes import Program

from fireopd.training import checkpoint_files

FIT = ["fit", "--config=configs/multi_teacher.yaml"]
FIT += ["--config=configs/hardware/fsdp.yaml", "--trainer.devices=2", "--trainer.limit_val_batches=0"]
EVERY_STEP = "{class_path: RunCheckpoint, init_args: {every_n_train_steps: 1}}"
FIT += [f"--trainer.callbacks=[{EVERY_STEP}, helpers.memory_recorder.Holdings]"]
BACKGROUND = [FIT[-1].replace("steps: 1}", "steps: 1, background: true}")]
FIT += ["--data.prompts.num_training=70", "--data.prompts.num_validation=2", "--data.batch_size=7"]
FIT += ["--data.engine.max_response_length=32"]


class Pair(Program):
    """A run on two processes."""

    def __init__(self, folder, *arguments):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        own = [*FIT, f"--trainer.default_root_dir={folder}", *arguments]
        super().__init__(folder / f"{len(list(folder.glob('*.log')))}.log", *own, devices=2)

    def until_step(self, step):
        assert self.until(lambda: step_of(self.folder) >= step, seconds=600), self.said


def launch(folder, *arguments):
    """Run on two processes, of which the first starts the second; return the exit code and the output."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "fireopd", *FIT, f"--trainer.default_root_dir={folder}", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def step_of(folder):
    """Return the step of the last checkpoint that is whole, 0 if there is none."""
    try:
        return torch.load(checkpoint_files.last_checkpoint(folder) / "meta.pt", weights_only=True)["global_step"]
    except (checkpoint_files.UserError, FileNotFoundError):  # none yet, or moved away while it was looked at
        return 0
