"""LoRA: the base model at the start, PEFT's weights when merged, one copy of the base, and refused settings."""

import copy
import sys
import weakref

import peft
import pytest
import torch
from helpers.models import make_model
from helpers.processes import in_two_processes
from torch.distributed.device_mesh import init_device_mesh

from fireopd.distributed.fsdp import Sharding
from fireopd.errors import UserError
from fireopd.models import CausalScorer, LoRA, WeightStream, load_config
from fireopd.models.base_model_scorer import BaseModelScorer
from fireopd.models.fingerprint import fingerprint

TOKENS = torch.arange(24).reshape(2, 12)
MASK = torch.ones_like(TOKENS, dtype=torch.bool)
ADAPTER = LoRA(rank=4, alpha=8.0)


def trained(model, adapter=ADAPTER):
    """Attach an adapter and give it values as after training."""
    adapter.attach(model)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draws))
    return model


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("kind", ["tied", "untied", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_starts_from_the_base_model_bit_by_bit(kind, dtype):
    base, model, state = make_model(kind, dtype), make_model(kind, dtype), torch.get_rng_state()
    ADAPTER.attach(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(logits(model), logits(base))
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert own.keys() == ADAPTER.trained(model.state_dict()).keys()
    assert {name: p.shape for name, p in own.items()} == ADAPTER.shapes(base.config)
    assert sum(p.numel() for p in own.values()) == ADAPTER.size(base.config)
    assert all(p.dtype == torch.float32 for p in own.values())
    assert any(p.std() > 0 for p in own.values())
    assert fingerprint(p for p in model.parameters() if not p.requires_grad) == fingerprint(base.parameters())


@pytest.mark.parametrize("kind", ["tied", "untied", "gpt2"])
def test_merged_weights_are_those_of_peft(kind):
    base = make_model(kind)
    model = trained(make_model(kind))
    stream = WeightStream(model, ADAPTER)
    merged = dict(stream)
    assert list(merged) == [name for name, _ in WeightStream(base)]
    theirs = peft.get_peft_model(copy.deepcopy(base), ADAPTER.peft_config(transposed=kind == "gpt2"))
    factors = {f"base_model.model.{name}": value for name, value in ADAPTER.trained(model.state_dict()).items()}
    assert not theirs.load_state_dict(factors, strict=False).unexpected_keys
    torch.testing.assert_close(logits(model), logits(theirs))
    expected = theirs.merge_and_unload().state_dict()
    assert all((expected[name] - value).abs().max() <= 1e-6 for name, value in merged.items())
    assert any((value - base.state_dict()[name]).abs().max() > 0.1 for name, value in merged.items())
    assert stream.metadata() == [(name, value.dtype, tuple(value.shape)) for name, value in merged.items()]
    ADAPTER.merge_into(base, ADAPTER.trained(model.state_dict()))
    assert all(torch.equal(base.state_dict()[name], value) for name, value in merged.items())


def test_small_updates_of_a_half_precision_base_are_not_rounded_away():
    model = trained(make_model("tied", torch.bfloat16))
    merged, name = dict(WeightStream(model, ADAPTER)), "model.layers.0.self_attn.q_proj.weight"
    assert merged[name].dtype == torch.float32
    assert merged["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert not torch.equal(merged[name], merged[name].bfloat16().float())


def test_one_tensor_is_merged_at_a_time():
    """Of a stream that is read and forgotten, no merged tensor stays."""
    model, merged = trained(make_model("tied")), []
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    for _, tensor in WeightStream(model, ADAPTER):
        assert not any(reference() is not None for reference in merged)
        if tensor.data_ptr() not in own:
            merged.append(weakref.ref(tensor))
        del tensor
    assert len(merged) == 14, "the layers of both blocks"


def test_a_base_model_scores_with_the_weights_of_the_student():
    base = CausalScorer(make_model("untied"), 200)
    student = CausalScorer(trained(make_model("untied")), 2**20)
    shared = BaseModelScorer(student, ADAPTER)
    shared.chunk_logits = 200
    with torch.no_grad():
        assert torch.equal(shared(TOKENS, MASK).logprobs, base(TOKENS, MASK).logprobs)
        assert (student(TOKENS, MASK).logprobs - base(TOKENS, MASK).logprobs).abs().max() > 0.1
    assert student.chunk_logits == 2**20
    student(TOKENS, MASK).logprobs.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in student.parameters())
    with pytest.raises(ZeroDivisionError), ADAPTER.without(student.model):
        raise ZeroDivisionError
    assert not torch.equal(logits(student.model), logits(base.model)), "switched on again after an error"


def steps_of(student):
    """Take two steps after the base model has scored, and return its scores, the merged weights and the student's."""
    shared, optimizer = BaseModelScorer(student, ADAPTER), None
    for step in range(2):
        with torch.no_grad():
            base = shared(TOKENS, MASK).logprobs
        optimizer = optimizer or torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=1.0)
        student(TOKENS + step, MASK).logprobs.mean().neg().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return [base, student(TOKENS, MASK).logprobs, *(tensor for _, tensor in WeightStream(student.model, ADAPTER))]


def two_processes(rank, expected):
    student = CausalScorer(trained(make_model("tied", torch.float64)).to(torch.float64))
    Sharding().shard(student, init_device_mesh("cpu", (2,)), frozen=False)
    assert all(p.requires_grad == ("lora" in name) for name, p in student.named_parameters())
    for one, two in zip(expected, steps_of(student), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)  # gradients are reduced in float32


def test_sharded_models_train_as_one_process():
    expected = steps_of(CausalScorer(trained(make_model("tied", torch.float64)).to(torch.float64)))
    assert not torch.equal(expected[0], expected[1])
    in_two_processes(two_processes, expected)


def test_targets_that_are_no_linear_layers_are_refused():
    LoRA(target_modules=["q_proj", "mlp.up_proj"]).check("tiny/student")
    names = ".* Choose from down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    for target in ("query", "self_attn", "embed_tokens", "proj"):
        with pytest.raises(UserError, match=f"model.adapter.target_modules: '{target}': no linear layer{names}"):
            LoRA(target_modules=["q_proj", target]).check("tiny/student")
    with pytest.raises(UserError, match="'lm_head': the output layer cannot have an update"):
        LoRA(target_modules=["lm_head"]).check("tiny/student")
    names = LoRA(target_modules=["q_proj"]).shapes(load_config("tiny/student", "x"))
    assert all(".q_proj." in name for name in names)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"alpha": 0.0}, "alpha must be greater than 0"),
        ({"alpha": float("inf")}, "alpha must be greater than 0"),
        ({"dropout": 0.1}, "dropout must be 0, got 0.1: rollouts, scores and update must come from one policy"),
        ({"target_modules": []}, "target_modules must name a layer"),
    ],
)
def test_settings_out_of_range_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        LoRA(**settings)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"model.adapter: 'LoRA': needs peft.*fireopd\[lora\]"):
        ADAPTER.check("tiny/student")
