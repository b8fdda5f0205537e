"""Signals: a run stops at once where nothing can be torn, and after the step where it can."""

import os
import signal

import pytest
import torch
from helpers.training import before_each_step, fit, make_data, make_module
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.callbacks import RunCheckpoint
from fireopd.engines import HFEngine

STOPS = {signal.SIGINT: SystemExit, signal.SIGTERM: SIGTERMException}


class InRollout(HFEngine):
    """Gets a signal in the second rollout."""

    def generate(self, prompts, seeds):
        if self.policy_version == 1:
            os.kill(os.getpid(), self.signal)
            pytest.fail("the run continued")
        return super().generate(prompts, seeds)


def stopped(module, data, tmp_path, stop):
    with pytest.raises(stop):
        fit(module, data, tmp_path, callbacks=[RunCheckpoint()], enable_checkpointing=True)
    (last,) = tmp_path.rglob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    position = saved["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["position"]
    return saved["fireopd"]["policy_version"], saved["global_step"], position


@pytest.mark.parametrize(("number", "stop"), STOPS.items())
def test_in_the_update_the_step_is_finished_first(tmp_path, monkeypatch, number, stop):
    def interrupt(module):
        if module.policy_version == 1:
            os.kill(os.getpid(), number)

    before_each_step(monkeypatch, interrupt)
    assert stopped(make_module(), make_data(32), tmp_path, stop) == (2, 2, 2)


@pytest.mark.parametrize(("number", "stop"), STOPS.items())
def test_in_a_rollout_the_run_stops_at_once(tmp_path, number, stop):
    engine = InRollout(max_response_length=40)
    InRollout.signal = number
    assert stopped(make_module(), make_data(32, engine=engine), tmp_path, stop) == (1, 1, 1)


def test_the_handlers_that_were_there_come_back(tmp_path):
    before = [signal.getsignal(number) for number in STOPS]
    fit(make_module(), make_data(8), tmp_path)
    assert [signal.getsignal(number) for number in STOPS] == before
