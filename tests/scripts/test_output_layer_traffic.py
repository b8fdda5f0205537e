"""Formula of the output layer's traffic against the operations of both paths, on tensors without values."""

from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from helpers.paths import ROOT
from helpers.traffic_counter import TrafficCounter, size

from benchmarks.output_layer_traffic import DOCUMENTED, Shape, table
from fireopd.models import chunked_logprobs, fused_logprobs
from fireopd.models.output_head import LogitTransform

SHAPES = [Shape(2048, 64, 8192, 2**20), Shape(300, 512, 4100, 2**16)]


class Context(SimpleNamespace):
    """Context of an autograd function without autograd."""

    needs_input_grad = (True, True, False)

    def set_materialize_grads(self, value):
        pass

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors


def count(function, shape, monkeypatch):
    """Return bytes and floating-point operations, forward and backward."""
    from fireopd.models import fused_kernels

    counter = TrafficCounter()

    def fold(values, *_):
        counter.bytes += size(values)

    def to_gradient(values, *given):
        gradient = torch.empty_like(values, dtype=given[-1])
        counter.bytes += size(values) + size(gradient)
        return gradient

    monkeypatch.setattr(fused_kernels, "fold", fold)
    monkeypatch.setattr(fused_kernels, "to_gradient", to_gradient)
    context = Context()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    with torch.no_grad():
        hidden = torch.empty(shape.tokens, shape.width, dtype=torch.bfloat16, device="meta")
        weight = torch.empty(shape.vocabulary, shape.width, dtype=torch.bfloat16, device="meta")
        targets = torch.empty(shape.tokens, dtype=torch.int64, device="meta")
        settings = {"temperature": 1.0, "chunk_logits": shape.chunk_logits, "transform": LogitTransform()}
        settings |= {"entropy": True} if "entropy" in signature(function.forward).parameters else {}
        with counter:
            scores = function.forward(context, hidden, weight, None, targets, **settings)
            forward = counter.bytes, counter.flops
            function.backward(context, *scores)
    return forward, (counter.bytes - forward[0], counter.flops - forward[1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["chunked", "fused"])
def test_formula_equals_count(monkeypatch, name, shape):
    pytest.importorskip("triton")
    functions = {"chunked": chunked_logprobs._ChunkedLogprobs, "fused": fused_logprobs._FusedLogprobs}
    counted = count(functions[name], shape, monkeypatch)
    for found, flops, (moved, operations) in zip(getattr(shape, name), shape.flops, counted, strict=True):
        assert operations == flops
        assert found == pytest.approx(moved, rel=0.01)  # values per token


def test_documented_table_is_that_of_the_formula():
    assert table(DOCUMENTED) in (ROOT / "docs" / "performance.md").read_text()
