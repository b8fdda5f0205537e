"""Ctrl-C and SIGTERM while a process waits for the others of its run."""

import pickle
import signal

import pytest
from helpers.processes import SHORT, Program
from lightning.pytorch.strategies import SingleDeviceStrategy

from fireopd.distributed.rendezvous import ending_on_signals

FIT = ["fit", *SHORT, "--config=configs/hardware/fsdp.yaml", "--trainer.devices=2"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_for_the_others_ends_at_once(tmp_path, rank, number):
    run = Program(tmp_path / "log", *FIT, f"--trainer.default_root_dir={tmp_path}", devices=2)
    other = run.processes.pop(1 - rank)  # before it joins
    other.kill()
    other.join()
    try:
        assert run.until(lambda: run.log.exists() and f"GLOBAL_RANK: {rank}" in run.said)
        run.process.join(1.0)  # now it is inside PyTorch, or will be
        run.send(number)
        run.process.join(120)
        assert run.process.exitcode == 128 + number
        assert "stopped before training; start again with the same command" in run.said
        assert "Traceback" not in run.said
    finally:
        run.kill()


class Joins(SingleDeviceStrategy):
    """Notes where signals are written while it joins its group."""

    def setup_environment(self):
        self.descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self.descriptor)


def test_the_handlers_of_a_process_are_those_before():
    strategy = Joins()
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with ending_on_signals(strategy):
        assert isinstance(pickle.loads(pickle.dumps(strategy)), Joins), "a launcher may send it to other processes"
        strategy.setup_environment()
        during = strategy.descriptor
    strategy.setup_environment()
    assert during not in (-1, before)
    assert strategy.descriptor == before
