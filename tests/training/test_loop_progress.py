"""Interrupted runs log the same steps and validations, under the same numbers, as a run without an interrupt."""

import os
import signal
from collections import defaultdict
from contextlib import nullcontext

import pytest
from helpers.training import fit, make_data, make_module, make_trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.callbacks import RunCheckpoint
from fireopd.engines import HFEngine
from fireopd.training.module import FiReOPDModule

STEPS, EPOCH = 8, 4
SETTINGS = {"max_epochs": 2, "val_check_interval": 2, "log_every_n_steps": 1, "enable_checkpointing": True}


class Rows(Logger):
    """Logger that stores the rows in memory."""

    name, version = "rows", 0

    def __init__(self):
        self.rows = defaultdict(dict)

    def log_hyperparams(self, *arguments):
        pass

    def log_metrics(self, metrics, step=None):
        kept = {name: value for name, value in metrics.items() if name in ("train/loss", "val/avg_at_k")}
        self.rows[step] |= kept


class Interrupting(HFEngine):
    """Engine that gets SIGTERM in one call of `generate`."""

    at, calls = None, 0

    def generate(self, prompts, seeds):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().generate(prompts, seeds)


def data(engine=None):
    return make_data(4 * EPOCH, batch_size=4, engine=engine or HFEngine(max_response_length=8), num_validation=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    logger = Rows()
    fit(make_module(), data(), tmp_path_factory.mktemp("whole"), logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    losses = [step for step, row in logger.rows.items() if "train/loss" in row]
    validations = [step for step, row in logger.rows.items() if "val/avg_at_k" in row]
    assert losses == list(range(STEPS))
    assert validations == [1, 3, 5, 7]
    return logger.rows


class Stopped(FiReOPDModule):
    """Module that gets SIGTERM while the teachers score the batch of a step."""

    at = None

    def score(self, *arguments):
        if self.policy_version == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().score(*arguments)


def stopped_module(version):
    module = make_module()
    module.__class__, module.at = Stopped, version
    return module


def merged(first, second):
    """Return the rows of two parts of a run."""
    return {step: first.get(step, {}) | second.get(step, {}) for step in first | second}


def resume(folder, module, earlier):
    """Resume from the last checkpoint in a folder; return the rows of the run so far."""
    (last,) = folder.rglob("last.ckpt")
    logger = Rows()
    trainer = make_trainer(folder, logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    with pytest.raises(SIGTERMException) if isinstance(module, Stopped) else nullcontext():
        trainer.fit(module, data(), ckpt_path=last, weights_only=True)
    return merged(earlier, logger.rows)


def resume_to_the_end(folder, whole, earlier):
    """Resume from the last checkpoint, and compare all rows with those of the whole run."""
    module = make_module()
    rows = resume(folder, module, earlier)
    assert module.policy_version == STEPS
    assert {step: row for step, row in rows.items() if row} == {step: row for step, row in whole.items() if row}


def interrupted(folder, call):
    """Return the rows of a run that gets SIGTERM in a call of its engine."""
    logger, engine = Rows(), Interrupting(max_response_length=8)
    engine.at = call
    with pytest.raises(SIGTERMException):
        fit(make_module(), data(engine), folder, logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    return logger.rows


@pytest.mark.parametrize("version", [0, 2, 3, 4])
def test_an_interrupt_while_teachers_score(tmp_path, whole, version):
    logger = Rows()
    with pytest.raises(SIGTERMException):
        fit(stopped_module(version), data(), tmp_path, logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    resume_to_the_end(tmp_path, whole, logger.rows)


@pytest.mark.parametrize("call", [1, 3, 4, 7, 12])
def test_an_interrupt_in_a_rollout_or_a_validation(tmp_path, whole, call):
    resume_to_the_end(tmp_path, whole, interrupted(tmp_path, call))


@pytest.mark.parametrize(("call", "version"), [(3, 2), (6, 4)])
def test_an_interrupt_in_a_validation_and_another_after_it(tmp_path, whole, call, version):
    rows = resume(tmp_path, stopped_module(version), interrupted(tmp_path, call))
    resume_to_the_end(tmp_path, whole, rows)
