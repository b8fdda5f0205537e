"""Student weights by name: the tensors of a checkpoint, tied tensors once."""

import math

import torch
from helpers.processes import in_two_processes
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from fireopd.models.loading import load_causal_lm
from fireopd.models.weight_stream import WeightStream


def test_tied_tensors_occur_once_and_none_is_missing():
    model = load_causal_lm("tiny/student", "x", "float32")
    weights = WeightStream(model)
    names = [name for name, _ in weights]
    assert len(set(names)) == len(names)
    assert set(model.state_dict()) - set(names) == {"lm_head.weight"}
    assert [name for name, _ in weights] == names, "repeated iteration is supported"
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in weights)
    assert all(not tensor.requires_grad for _, tensor in weights)
    assert weights.metadata() == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in weights]


def test_persistent_buffers_are_included():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("saved", torch.ones(1))
    model.register_buffer("made_anew", torch.ones(1), persistent=False)
    assert [name for name, _ in WeightStream(model)] == ["weight", "bias", "saved"]


def test_the_stream_reflects_the_current_parameters():
    model = torch.nn.Linear(1, 1, bias=False)
    weights = WeightStream(model)
    with torch.no_grad():
        model.weight.fill_(5.0)
    assert dict(weights)["weight"].item() == 5.0


def gather(rank, folder):
    mesh = init_device_mesh("cpu", (2,))
    model = torch.nn.Linear(3, 5)
    for name, shape in (("weight", (5, 3)), ("bias", (5,))):
        full = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
        setattr(model, name, torch.nn.Parameter(distribute_tensor(full, mesh, [Shard(0)])))
    weights = WeightStream(model)
    assert weights.metadata() == [("weight", torch.float32, (5, 3)), ("bias", torch.float32, (5,))]
    torch.save(dict(weights), f"{folder}/{rank}.pt")


def test_sharded_tensors_are_gathered_on_all_processes(tmp_path):
    in_two_processes(gather, tmp_path)
    for rank in range(2):
        full = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(full["weight"], torch.arange(15.0).reshape(5, 3))
        assert torch.equal(full["bias"], torch.arange(5.0))
