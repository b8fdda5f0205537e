"""Interrupted runs log the same steps and validations, under the same numbers, as a run without an interrupt."""

import os
import signal
from collections import defaultdict

import pytest
from helpers.training import fit, make_data, make_module
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.callbacks import RunCheckpoint
from fireopd.engines import HFEngine

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
    return make_data(8 * EPOCH, engine=engine or HFEngine(max_response_length=24), num_validation=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    logger = Rows()
    fit(make_module(), data(), tmp_path_factory.mktemp("whole"), logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    losses = [step for step, row in logger.rows.items() if "train/loss" in row]
    validations = [step for step, row in logger.rows.items() if "val/avg_at_k" in row]
    assert losses == list(range(STEPS))
    assert validations == [1, 3, 5, 7]
    return logger.rows


def resume(tmp_path, whole, first):
    """Resume from the last checkpoint, and compare all rows with those of the whole run."""
    (last,) = tmp_path.rglob("last.ckpt")
    logger, module = Rows(), make_module()
    settings = SETTINGS | {"max_epochs": 0}
    _, trainer = fit(module, data(), tmp_path, logger=logger, callbacks=[RunCheckpoint()], **settings)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, data(), ckpt_path=last, weights_only=True)
    assert module.policy_version == STEPS
    rows = {step: dict(row) for step, row in first.items() if row}
    for step, row in logger.rows.items():
        rows[step] = rows.get(step, {}) | row
    assert {step: row for step, row in rows.items() if row} == {step: row for step, row in whole.items() if row}
    return logger.rows


@pytest.mark.parametrize("version", [0, 2, 3, 4])
def test_an_interrupt_while_teachers_score(tmp_path, whole, version):
    class Stopped(type(make_module())):
        def score(self, *arguments):
            if self.policy_version == version:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().score(*arguments)

    logger, module = Rows(), make_module()
    module.__class__ = Stopped
    with pytest.raises(SIGTERMException):
        fit(module, data(), tmp_path, logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    resume(tmp_path, whole, logger.rows)


@pytest.mark.parametrize("call", [1, 3, 4, 7, 12])
def test_an_interrupt_in_a_rollout_or_a_validation(tmp_path, whole, call):
    logger, engine = Rows(), Interrupting(max_response_length=24)
    engine.at = call
    with pytest.raises(SIGTERMException):
        fit(make_module(), data(engine), tmp_path, logger=logger, callbacks=[RunCheckpoint()], **SETTINGS)
    resume(tmp_path, whole, logger.rows)
