"""Compiled decoder layers."""

import pytest
import torch
from helpers.models import make_model
from torch._dynamo.testing import CompileCounter

from fireopd.errors import MissingResourceError, UserError
from fireopd.models import compiled_layers
from fireopd.models.compiled_layers import check_compile, compile_layers
from fireopd.models.lora import LoRA
from fireopd.models.placement import Placement
from fireopd.models.scorer import CausalScorer
from fireopd.models.weight_stream import WeightStream
from fireopd.training.run_plan import Budgets
from fireopd.training.student import load_student

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_compiled_layers_score_and_learn_as_others():
    models, counter = (make_model("tied"), make_model("tied")), CompileCounter()
    compile_layers(models[0], counter)
    for shape in ((2, 9), (3, 5)):
        tokens = torch.randint(40, shape, generator=torch.Generator().manual_seed(0))
        results = [CausalScorer(model)(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs for model in models]
        assert torch.equal(*results)
        for result in results:
            result.mean().backward()
    for own, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(own.grad, other.grad)
    assert counter.frame_count == 1, "layers and numbers of rows and tokens share it"


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2)])
def test_names_of_tensors_stay_as_they_are(adapter):
    model = make_model("tied")
    if adapter is not None:
        adapter.attach(model)
    names, sent = list(model.state_dict()), list(WeightStream(model, adapter).tensors)
    compile_layers(model, "eager")
    assert list(model.state_dict()) == names
    assert list(WeightStream(model, adapter).tensors) == sent


def test_the_student_is_compiled_if_it_is_set(monkeypatch):
    made = []
    monkeypatch.setattr("fireopd.training.student.compile_layers", made.append)
    for compiled in (False, True):
        budgets = Budgets(1, 1, 64, 64, "torch", gradient_checkpointing=False, attention="eager", compiled=compiled)
        student = load_student("tiny/student", "float32", budgets, Placement(CPU))
    assert made == [student.model]
    assert student.model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("device", "missing", "message"),
    [(GPU, "triton", "Triton is not installed"), (CPU, "g++", "PyTorch compiles with g.. or clang.., and neither")],
)
def test_missing_compilers_are_named(monkeypatch, device, missing, message):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled_layers, "has_triton", lambda: missing != "triton")
    monkeypatch.setattr(compiled_layers.shutil, "which", lambda name: None if missing == "g++" else name)
    with pytest.raises(MissingResourceError, match=message):
        check_compile("model.compile", "tiny/student", device, "torch")


def test_models_without_known_layers_are_refused(monkeypatch):
    monkeypatch.setattr(compiled_layers, "layer_sizes", lambda config: (0, 10))
    with pytest.raises(UserError, match="does not name the decoder layers of tiny/student. Set it to false"):
        check_compile("model.compile", "tiny/student", CPU, "torch")


def test_layers_are_not_replaced_twice():
    with pytest.raises(UserError, match="torch.compile fuses the operations that Liger replaces"):
        check_compile("model.compile", "tiny/student", CPU, "liger")
