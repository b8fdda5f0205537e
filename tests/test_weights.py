"""The student's weights by name: what a checkpoint would hold, tied tensors once."""

import torch

from fireopd.models import load_causal_lm
from fireopd.weights import Weights


def test_tied_tensors_come_once_and_nothing_is_missing():
    model = load_causal_lm("tiny/student", "x", "float32")
    weights = Weights(model)
    names = [name for name, _ in weights]
    assert len(set(names)) == len(names)
    assert set(model.state_dict()) - set(names) == {"lm_head.weight"}
    assert [name for name, _ in weights] == names, "it can be iterated over again"
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in weights)
    assert all(not tensor.requires_grad for _, tensor in weights)
    assert weights.metadata() == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in weights]


def test_buffers_that_a_checkpoint_holds_are_weights_too():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("saved", torch.ones(1))
    model.register_buffer("made_anew", torch.ones(1), persistent=False)
    assert [name for name, _ in Weights(model)] == ["weight", "bias", "saved"]


def test_what_comes_is_the_model_as_it_is_now():
    model = torch.nn.Linear(1, 1, bias=False)
    weights = Weights(model)
    with torch.no_grad():
        model.weight.fill_(5.0)
    assert dict(weights)["weight"].item() == 5.0
