"""Tests of the process group that vLLM's engines share."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch.distributed as dist

from fireopd.engines.vllm.process_group import SharedGroup


def start():
    """Create a process group of one process, as vLLM does, if there is none."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


@pytest.fixture
def group(monkeypatch):
    """The shared group, with vLLM replaced by the functions that it calls."""
    vllm = ModuleType("vllm.distributed")
    vllm.parallel_state = SimpleNamespace(
        destroy_model_parallel=lambda: None, destroy_distributed_environment=dist.destroy_process_group
    )
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.distributed", vllm)
    yield SharedGroup()
    if dist.is_initialized():
        dist.destroy_process_group()


def test_the_last_engine_destroys_the_group(group):
    for _ in range(2):
        with group.starting():
            start()
    group.leave()
    assert dist.is_initialized(), "one engine is running"
    group.leave()
    assert not dist.is_initialized()


def test_the_group_of_a_trainer_is_kept(group):
    start()
    with group.starting():
        pass
    group.leave()
    assert dist.is_initialized()


def test_an_engine_that_does_not_start_leaves_no_group(group):
    def fail():
        with group.starting():
            start()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not dist.is_initialized()
    assert group.engines == 0
