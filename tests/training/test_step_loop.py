"""Loop over steps: a resume with another validation interval logs every step under its own number."""

from collections import defaultdict

import pytest
import torch
from helpers.training import make_trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import Logger

from fireopd.training.interrupts import Interrupts
from fireopd.training.loop_progress import rewind_loops
from fireopd.training.step_loop import StepCallback, validation_state

STEPS = 8
SETTINGS = {"max_epochs": 2, "limit_train_batches": 4, "limit_val_batches": 1, "val_check_interval": 2}


class Rows(Logger):
    """Logger that stores the names of the metrics of each step in memory."""

    name, version = "rows", 0

    def __init__(self):
        self.rows = defaultdict(set)

    def log_hyperparams(self, *arguments):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows[step] |= metrics.keys() & {"train", "val"}


class Model(BoringModel):
    """Model that logs the number of its step, and saves the loop as the module of a run does."""

    def training_step(self, batch, batch_idx):
        self.log("train", float(self.trainer.global_step))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val", 1.0)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["fireopd"] = {"validation": validation_state(self.trainer)}

    def on_load_checkpoint(self, checkpoint):
        rewind_loops(checkpoint)


class Save(StepCallback, Checkpoint):
    """Saves at the end of each step and of each validation; a checkpoint callback, it acts last."""

    def on_step_end(self, trainer, pl_module):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/step{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/validation{trainer.global_step}.ckpt")


def run(folder, callbacks=(), checkpoint=None, **settings):
    """Return the steps with a row of the training, and those with a row of a validation."""
    logger = Rows()
    settings = SETTINGS | {"log_every_n_steps": 1, "enable_checkpointing": True} | settings
    trainer = make_trainer(folder, logger=logger, callbacks=[Interrupts(), *callbacks], **settings)
    trainer.fit(Model(), ckpt_path=checkpoint, weights_only=True)
    assert trainer.global_step == STEPS
    return tuple([step for step, names in sorted(logger.rows.items()) if kind in names] for kind in ("train", "val"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder with the checkpoints of a run that validates every two steps."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, [Save()]) == (list(range(STEPS)), [1, 3, 5, 7])
    return folder


@pytest.mark.parametrize(
    ("settings", "validations"),
    [
        ({"val_check_interval": 1}, [1, 2, 3, 4, 5, 6, 7]),
        ({"val_check_interval": 3}, [1, 2, 6]),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, [1, 2, 5]),
        ({"check_val_every_n_epoch": 2}, [1, 5, 7]),
        ({"val_check_interval": "00:00:30:00"}, [1]),
        ({"limit_val_batches": 0}, []),
        ({"num_sanity_val_steps": -1}, [1, 3, 5, 7]),
    ],
)
def test_a_changed_interval_applies_from_the_next_step_and_moves_no_row(saved, settings, validations):
    """A validation that was due in the checkpoint is still held, one that was complete is not repeated."""
    steps = list(range(2, STEPS))
    assert run(saved, checkpoint=saved / "step2.ckpt", **settings) == (steps, validations)
    later = [step for step in validations if step > 1]
    assert run(saved, checkpoint=saved / "validation2.ckpt", **settings) == (steps, later)


@pytest.mark.parametrize(
    ("name", "steps", "validations"),
    [("step3", [3, 4, 5, 6, 7], [6]), ("step4", [4, 5, 6, 7], [3, 6]), ("validation4", [4, 5, 6, 7], [6])],
)
def test_a_resume_before_a_validation_or_at_the_end_of_an_epoch_moves_no_row(saved, name, steps, validations):
    assert run(saved, checkpoint=saved / f"{name}.ckpt", val_check_interval=3) == (steps, validations)
