"""Quantized teachers: values, memory, and refusals before anything is loaded."""

import sys

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.training import make_data, make_module, make_trainer

from fireopd.errors import UserError
from fireopd.models.loading import load_config
from fireopd.models.quantization import (
    GROUP_SIZE,
    check_quantization,
    load_quantized,
    quantized_bytes,
    round_to_int4,
)
from fireopd.teachers import HFTeacher, deduplicate
from fireopd.training.run_checks import problems

CPU, KEY = torch.device("cpu"), "model.teachers.math"


def stored(tensor):
    """Return the bytes of a tensor, or of the tensors that a quantized one consists of."""
    if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    return sum(stored(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])


def test_quantized_weights_give_nearly_the_scores_of_the_model():
    pytest.importorskip("torchao")
    rollouts, gaps = rollouts_of(scored_batch(6, 30)), {}
    plain = HFTeacher("tiny/math")
    plain.setup(KEY, CPU)
    expected = plain.score(rollouts, entropy=True)
    for quantization in ("int8", "int4"):
        teacher = HFTeacher("tiny/math", quantization=quantization)
        teacher.setup(KEY, CPU)
        scores = teacher.score(rollouts, entropy=True)
        gaps[quantization] = (scores.logprobs - expected.logprobs)[rollouts.response_mask].abs().mean().item()
        head = teacher.scorer.model.get_output_embeddings().weight
        assert torch.equal(head, plain.scorer.model.get_output_embeddings().weight)
        assert not any(p.requires_grad for p in teacher.scorer.parameters())
        _, known = teacher.score_with_distributions(rollouts, entropy=False)
        assert known.heads[0].weight.dtype == torch.float32
    # Half a step is 1/254 of the largest weight of an output in int8, and about 1/30 of the range of a group in int4.
    assert 0 < gaps["int8"] < gaps["int4"] / 2 < 1


def test_int4_keeps_weights_of_sixteen_equal_steps():
    torch.manual_seed(0)
    low, step = torch.randn(7, 3, 1) + 2, torch.rand(7, 3, 1) + 0.1  # zero is none of the values
    levels = torch.randint(16, (7, 3, GROUP_SIZE))
    levels[..., :2] = torch.tensor([0, 15])
    weight = (low + step * levels).flatten(-2)
    torch.testing.assert_close(round_to_int4(weight), weight)
    other = weight + step.expand(7, 3, GROUP_SIZE).flatten(-2) * (torch.rand_like(weight) - 0.5)
    low, high = other.unflatten(-1, (-1, GROUP_SIZE)).aminmax(dim=-1)
    moved = (round_to_int4(other) - other).abs().unflatten(-1, (-1, GROUP_SIZE)).amax(-1)
    assert (moved <= (high - low) / 30 + 1e-6 * high.abs()).all()  # half a step
    assert torch.equal(round_to_int4(torch.full((1, GROUP_SIZE), 0.3)), torch.full((1, GROUP_SIZE), 0.3))


def test_the_memory_is_that_of_the_quantized_weights():
    pytest.importorskip("torchao")
    config = load_config("tiny/math", KEY)
    for quantization in ("int8", "int4"):
        model = load_quantized("tiny/math", KEY, "float32", quantization, CPU)
        held = sum(stored(parameter.data) for parameter in model.parameters())
        if quantization == "int8":
            assert quantized_bytes(config, "float32", quantization) == held
        else:  # a CPU does not pack int4
            assert quantized_bytes(config, "float32", quantization) < held
    (part,) = HFTeacher("tiny/math", quantization="int8").memory(1).values()
    (whole,) = HFTeacher("tiny/math").memory(1).values()
    assert part.size < whole.size / 2


def test_a_quantized_teacher_is_another_teacher_and_not_the_student_below_its_adapter():
    shared = deduplicate({"a": HFTeacher("tiny/math"), "b": HFTeacher("tiny/math", quantization="int8")})
    assert shared["a"] is not shared["b"]
    assert HFTeacher("tiny/math").reads_student("tiny/math", "float32", adapter=True)
    assert not HFTeacher("tiny/math", quantization="int8").reads_student("tiny/math", "float32", adapter=True)


def test_what_cannot_be_quantized_is_refused_before_loading(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", torch)  # any module: nothing of it is called
    check_quantization(KEY, "tiny/math", "int4", "float32", CPU, whole=True)
    with pytest.raises(UserError, match=r"math.quantization: 'int8': quantized weights can be neither sharded"):
        check_quantization(KEY, "tiny/math", "int8", "float32", CPU, whole=False)
    with pytest.raises(UserError, match="computes in bfloat16, and the dtype is float32"):
        check_quantization(KEY, "tiny/math", "int4", "float32", torch.device("cuda"), whole=True)
    monkeypatch.setattr("fireopd.models.quantization.GROUP_SIZE", 7)
    with pytest.raises(UserError, match=r"has \d+ inputs, not a multiple of the group of 7. Set quantization int8"):
        check_quantization(KEY, "tiny/math", "int4", "float32", CPU, whole=True)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    module, data = make_module(teachers={"math": HFTeacher("tiny/math", quantization="int8")}), make_data()
    module.trainer = data.trainer = make_trainer(tmp_path)
    found = [str(error) for error in problems(module.run_plan(data))]
    assert any(text.startswith("model.teachers.math.quantization: 'int8': needs torchao") for text in found)
