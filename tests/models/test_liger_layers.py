"""Layers of Liger: stand-ins for its functions replace those of one model; the kernels in the interpreter."""

import copy
import os
import subprocess
import sys
from functools import wraps
from types import SimpleNamespace

import pytest
import torch
from helpers.paths import ROOT

from fireopd.errors import UserError
from fireopd.models import kernels, liger_layers
from fireopd.models.loading import load_causal_lm

CASE = """
import copy, numpy, torch
import triton.language as tl
from triton.runtime import interpreter
whole = interpreter._implicit_cvt
def convert(value):  # the interpreter leaves floats as they are, which the compiler converts
    if not isinstance(value, float):
        return whole(value)
    return tl.tensor(interpreter.TensorHandle(numpy.array([value], dtype=numpy.float32), tl.float32), tl.float32)
interpreter._implicit_cvt = convert
import liger_kernel.ops.rms_norm
liger_kernel.ops.rms_norm.rsqrt = lambda x: tl.math.rsqrt(x)  # that of CUDA's library has no body in the interpreter
from fireopd.models.liger_layers import use_liger
from fireopd.models.loading import load_causal_lm
plain = load_causal_lm("tiny/student", "x", "float32")
fused, tokens = copy.deepcopy(plain), torch.tensor([[5, 9, 3]])
use_liger(fused)
losses = [model(tokens).logits.square().mean() for model in (plain, fused)]
torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
for loss in losses:
    loss.backward()
for one, two in zip(plain.parameters(), fused.parameters(), strict=True):
    torch.testing.assert_close(two.grad, one.grad, rtol=0, atol=1e-5 * float(one.grad.abs().max()) + 1e-9)
"""


@pytest.fixture
def functions():
    """The formulas of the kernels in PyTorch, and the number of their calls."""
    calls = dict.fromkeys(("norm", "rope", "swiglu"), 0)

    def norm(x, weight, eps, *, in_place):
        calls["norm"] += 1
        assert not in_place
        return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))

    def rope(q, k, cos, sin):
        calls["rope"] += 1
        half = q.shape[-1] // 2
        turned = [torch.cat((-x[..., half:], x[..., :half]), -1) for x in (q, k)]
        return tuple(x * cos[:, None] + y * sin[:, None] for x, y in zip((q, k), turned, strict=True))

    def swiglu(gate, up):
        calls["swiglu"] += 1
        return gate * torch.sigmoid(gate) * up

    return SimpleNamespace(liger_rms_norm=norm, liger_rope=rope, liger_swiglu=swiglu, calls=calls)


def test_the_layers_of_one_model_are_replaced(functions):
    plain = load_causal_lm("tiny/student", "x", "float32")
    fused, tokens = copy.deepcopy(plain), torch.tensor([[5, 9, 3, 7]])
    names = list(fused.state_dict())
    liger_layers.use_liger(fused, functions)
    assert list(fused.state_dict()) == names
    expected = plain(tokens).logits
    assert set(functions.calls.values()) == {0}, "other models of the architecture stay as they are"
    torch.testing.assert_close(fused(tokens).logits, expected, rtol=1e-5, atol=1e-5)
    layers = plain.config.num_hidden_layers
    norms = sum(type(module).__name__.endswith("RMSNorm") for module in plain.modules())
    assert functions.calls == {"norm": norms, "rope": layers, "swiglu": layers}


def test_attention_below_a_decorator_is_replaced(functions, monkeypatch):
    """From version 5.24 of transformers on, a decorator renames arguments."""
    model = load_causal_lm("tiny/student", "x", "float32")
    attention = type(model.model.layers[0].self_attn)
    inner = attention.forward

    @wraps(inner)
    def forward(*args, **settings):
        return inner(*args, **settings)

    monkeypatch.setattr(attention, "forward", forward)
    liger_layers.use_liger(model, functions)
    model(torch.tensor([[5, 9, 3]]))
    assert functions.calls["rope"] == model.config.num_hidden_layers


def test_attention_that_rotates_by_other_means_is_refused(functions, monkeypatch):
    monkeypatch.setattr(liger_layers, "ROTATION", "rotate_otherwise")
    with pytest.raises(UserError, match=r"Attention of transformers [\d.]+ does not call rotate_otherwise\. Set it"):
        liger_layers.use_liger(load_causal_lm("tiny/student", "x", "float32"), functions)


def test_kernels_compute_the_same_layers_in_the_interpreter():
    """Triton reads `TRITON_INTERPRET` when it is imported."""
    pytest.importorskip("liger_kernel")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CASE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("device", "path", "problem"),
    [
        ("cpu", "tiny/student", "the run computes on cpu"),
        ("cuda", "tiny/student", "needs liger_kernel, which is not installed"),
        ("cuda", "gemma", "the layers of gemma3_text are not those of llama, mistral, qwen2, qwen3"),
    ],
)
def test_what_cannot_be_replaced_is_refused_by_name(monkeypatch, device, path, problem):
    monkeypatch.setattr("fireopd.models.fused_logprobs.has_triton", lambda: True)
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    if path == "gemma":
        monkeypatch.setattr(kernels, "load_config", lambda *_: SimpleNamespace(model_type="gemma3_text"))
    with pytest.raises(UserError, match=problem):
        kernels.check_kernels("model.kernels", "liger", torch.device(device), path)
