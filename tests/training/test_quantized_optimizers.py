"""Optimizers of torchao: states in 8 bits are estimated, saved as data, and restored bit by bit."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.checkpoints import metadata

from fireopd.errors import UserError
from fireopd.training import checkpoint_files
from fireopd.training.checkpoint_integrity import load_data
from fireopd.training.master_weights import check_master_weights
from fireopd.training.memory_estimate import optimizer_bytes
from fireopd.training.optimizer_checks import check_optimizer
from fireopd.training.optimizer_step import _random_numbers


@pytest.fixture
def adamw8bit():
    """The optimizer; its step is compiled, which takes minutes on a CPU."""
    optim = pytest.importorskip("torchao.optim")
    with torch.compiler.set_stance("force_eager"):
        yield optim.AdamW8bit


def steps(optimizer, parameters, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_a_resume_from_a_file_is_exact(adamw8bit, tmp_path):
    """The file is loaded as data, and the schedule changes the learning rate, which is a tensor."""
    start = [torch.randn(64, 128), torch.randn(5)]
    whole, stopped = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    one, two = adamw8bit(whole, lr=1e-2), adamw8bit(stopped, lr=1e-2)
    schedules = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 6) for optimizer in (one, two)]
    for optimizer, parameters, schedule in zip((one, two), (whole, stopped), schedules, strict=True):
        for number in range(3):
            steps(optimizer, parameters, [number])
            schedule.step()
    path = tmp_path / "last.ckpt"
    torch.save(metadata() | {"global_step": 3, "state_dict": {}, "optimizer_states": [two.state_dict()]}, path)
    checkpoint_files.read_run(path)
    resumed = adamw8bit(stopped, lr=1e-2)
    resumed.load_state_dict(load_data(path)["optimizer_states"][0])
    schedule = torch.optim.lr_scheduler.LinearLR(adamw8bit(stopped, lr=1e-2), 0.1, 1.0, 6)
    schedule.load_state_dict(schedules[1].state_dict())
    schedule.optimizer = resumed
    for optimizer, parameters, own in ((one, whole, schedules[0]), (resumed, stopped, schedule)):
        for number in range(3, 6):
            steps(optimizer, parameters, [number])
            own.step()
    assert type(resumed.state[stopped[0]]["exp_avg"]).__name__ == "OptimState8bit"
    for expected, found in zip(whole, stopped, strict=True):
        assert torch.equal(expected, found)


def test_states_are_in_8_bits_and_the_checks_accept_them(adamw8bit):
    factory = partial(adamw8bit, lr=1e-6)
    assert 2 <= optimizer_bytes(factory) < 2.1
    processes = SimpleNamespace(device=torch.device("cpu"))
    check_optimizer(SimpleNamespace(optimizer=factory, scheduler=None, processes=processes))
    run = {"student": "tiny/student", "adapter": None, "optimizer": factory}
    check_master_weights(SimpleNamespace(dtype="float32", **run))
    with pytest.raises(UserError, match="changes only"):
        check_master_weights(SimpleNamespace(dtype="bfloat16", **run))


class Rounding(torch.optim.SGD):
    """Optimizer with stochastic rounding."""

    bf16_stochastic_round = True


def test_stochastic_rounding_is_refused_where_it_has_no_effect():
    run = {"student": "tiny/student", "optimizer": Rounding}
    check_master_weights(SimpleNamespace(dtype="bfloat16", adapter=None, **run))
    with pytest.raises(UserError, match="bf16_stochastic_round: True: the student's parameters are in float32"):
        check_master_weights(SimpleNamespace(dtype="float32", adapter=None, **run))
    with pytest.raises(UserError, match="those of the adapter are in float32"):
        check_master_weights(SimpleNamespace(dtype="bfloat16", adapter=object(), **run))


def test_stochastic_rounding_depends_on_seed_and_step_alone():
    def draw(optimizer, step):
        with _random_numbers(optimizer, step):
            return torch.rand(3)

    parameter = [torch.nn.Parameter(torch.zeros(1))]
    rounding, plain = Rounding(parameter), torch.optim.SGD(parameter)
    first, state = draw(rounding, 1), torch.get_rng_state()
    draw(plain, 1)
    assert not torch.equal(torch.get_rng_state(), state)
    assert torch.equal(draw(rounding, 1), first)
    assert not torch.equal(draw(rounding, 2), first)
