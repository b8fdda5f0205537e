"""Chunked log-probabilities and entropies: values and gradients against a reference, and memory."""

import pytest
import torch
from helpers.largest_tensor import LargestTensor

from fireopd.models import chunked_logprobs
from fireopd.models.chunked_logprobs import token_logprobs
from fireopd.models.output_head import LogitTransform, OutputHead

T, D, V = 13, 5, 17


def inputs(dtype=torch.float64, bias=True, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    states, weight, offset = (torch.randn(shape, generator=generator).to(dtype) for shape in ((T, D), (V, D), (V,)))
    target_ids = torch.randint(V, (T,), generator=generator)
    leaves = [(scale * states).requires_grad_(), weight.requires_grad_(), offset.requires_grad_() if bias else None]
    return *leaves, target_ids


def naive(states, weight, bias, target_ids, temperature, scale=1.0, cap=None):
    """Return the same through probabilities."""
    logits = scale * (states @ weight.T + (0 if bias is None else bias))
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    p = (logits / temperature).softmax(-1)
    terms = torch.where(p > 0, p * p.clamp(min=1e-300).log(), 0.0)
    return p[torch.arange(len(p)), target_ids].log(), -terms.sum(-1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("temperature", "chunk", "transform"),
    [
        (1.0, 1, ()),
        (0.7, 2 * V, ()),
        (1.0, 7 * T, (0.3, None)),
        (1.6, 10**6, (1.0, 1.5)),
        (0.8, 7 * T, (0.7, 2.0)),
    ],
)
def test_values_and_gradients_equal_the_reference(bias, temperature, chunk, transform):
    *leaves, target_ids = inputs(bias=bias)
    given = {"temperature": temperature, "entropy": True, "chunk_logits": chunk}
    given["transform"] = LogitTransform(*transform)
    for ours, expected in zip(
        token_logprobs(*leaves, target_ids, **given), naive(*leaves, target_ids, temperature, *transform), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    trained = [leaf for leaf in leaves if leaf is not None]
    assert torch.autograd.gradcheck(lambda *_: token_logprobs(*leaves, target_ids, **given), trained)
    given["entropy"] = False
    assert torch.autograd.gradcheck(lambda *_: token_logprobs(*leaves, target_ids, **given)[0], trained)
    head = OutputHead(*leaves[1:], given["transform"])
    assert torch.autograd.gradcheck(lambda *_: head(leaves[0]), trained)


def test_frozen_parameters_have_no_gradient():
    states, weight, bias, target_ids = inputs()
    frozen = weight.detach(), bias.detach()
    logprobs, _ = token_logprobs(states, *frozen, target_ids, temperature=1.0, entropy=False, chunk_logits=40)
    logprobs.sum().backward()
    expected = torch.autograd.grad(naive(states, weight, bias, target_ids, 1.0)[0].sum(), states)[0]
    torch.testing.assert_close(states.grad, expected)


def test_impossible_and_certain_tokens_are_exact():
    """A bias of minus infinity excludes a token; a large bias makes a token certain."""
    states, weight, _, _ = inputs(torch.float32)
    target_ids = torch.full((T,), 3)
    bias = torch.zeros(V).index_fill_(0, torch.tensor([2]), -torch.inf).requires_grad_()
    given = {"temperature": 1.0, "entropy": True, "chunk_logits": 3 * T}
    logprobs, entropies = token_logprobs(states, weight, bias, target_ids, **given)
    others = [v for v in range(V) if v != 2]
    expected = naive(states.double(), weight.double()[others], None, target_ids - 1, 1.0)
    torch.testing.assert_close(logprobs.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies.double(), expected[1], rtol=1e-5, atol=1e-5)
    (logprobs.sum() + entropies.sum()).backward()
    assert all(leaf.grad.isfinite().all() for leaf in (states, weight, bias))
    impossible, _ = token_logprobs(states, weight, bias, target_ids - 1, **given)
    assert (impossible == -torch.inf).all()
    masked = torch.where(torch.zeros(T, dtype=torch.bool), impossible, 0.0)
    assert all(g.isfinite().all() for g in torch.autograd.grad(masked.sum(), (states, weight, bias)))
    certain = torch.zeros(V).index_fill_(0, torch.tensor([3]), 500.0)
    logprobs, entropies = token_logprobs(states, weight, certain, target_ids, **given)
    assert logprobs.abs().max() == entropies.abs().max() == 0


@pytest.mark.parametrize("transform", [(), (0.5, 8.0)])
def test_bfloat16_logits_are_those_of_a_float32_head(transform):
    """Hidden states and weights are rounded, the logits and the gradient of the hidden states are not."""
    half = inputs(torch.bfloat16, scale=4.0)
    double = [leaf.detach().double().requires_grad_() for leaf in half[:3]]
    given = {"temperature": 1.0, "entropy": True, "chunk_logits": 2 * T, "transform": LogitTransform(*transform)}
    ours = token_logprobs(*half, **given)
    expected = naive(*double, half[3], 1.0, *transform)
    logits = OutputHead(*half[1:3], given["transform"])(half[0])
    ours = *ours, logits.log_softmax(-1).gather(-1, half[3][:, None]).squeeze(-1)
    for value, reference in zip(ours, (*expected, expected[0]), strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), reference, rtol=0, atol=1e-5)
    rounded = torch.nn.functional.linear(*half[:3]).float().log_softmax(-1).gather(-1, half[3][:, None]).squeeze(-1)
    assert (rounded - naive(*double, half[3], 1.0)[0]).abs().max() > 1e-2
    ours[0].sum().backward(inputs=half[:3])
    expected[0].sum().backward()
    chunked = [leaf.grad for leaf in half[:3]]
    for gradient, reference in zip((*chunked, *torch.autograd.grad(ours[2].sum(), half[:3])), double * 2, strict=True):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient.double(), reference.grad, rtol=0.03, atol=0.2)


def test_autocast_computes_in_bfloat16_with_float32_gradients():
    states, weight, bias, target_ids = inputs(torch.float32)
    given = {"temperature": 0.9, "entropy": True, "chunk_logits": 40}
    with torch.autocast("cpu", torch.bfloat16):
        mixed = token_logprobs(states, weight, bias, target_ids, **given)
    half = token_logprobs(*(leaf.bfloat16() for leaf in (states, weight, bias)), target_ids, **given)
    for one, other in zip(mixed, half, strict=True):
        assert torch.equal(one, other)
    mixed[0].sum().backward()
    assert weight.grad.dtype == torch.float32


def test_empty_inputs_are_supported():
    states, weight, bias, target_ids = inputs()
    logprobs, entropies = token_logprobs(
        states[:0], weight, bias, target_ids[:0], temperature=1.0, entropy=True, chunk_logits=40
    )
    assert logprobs.shape == entropies.shape == (0,)
    logprobs.sum().backward()
    assert weight.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [V, 50, T * V // 2])
def test_memory_stays_within_the_chunk_size(dtype, chunk):
    leaves = inputs(dtype)
    assert max(leaf.numel() for leaf in leaves) <= V * D
    with LargestTensor() as largest:
        logprobs, entropies = token_logprobs(*leaves, temperature=0.7, entropy=True, chunk_logits=chunk)
        (logprobs.sum() + entropies.sum()).backward()
    assert largest.size <= max(chunk, V * D) < T * V


@pytest.mark.parametrize(("chunk_logits", "width"), [(7 * 300, 256), (7 * 100, 100), (3, 1)])
def test_chunks_of_the_backward_pass_are_aligned(monkeypatch, chunk_logits, width):
    """Rows of a multiple of 128 numbers, where a chunk is that large."""
    widths, vocabulary = [], 600 if width > 1 else 5
    plain = chunked_logprobs.product

    def product(hidden_states, weight, *others):
        widths.append(len(weight))
        return plain(hidden_states, weight, *others)

    hidden = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 4, dtype=torch.float64, requires_grad=True)
    settings = {"temperature": 1.0, "entropy": False, "chunk_logits": chunk_logits}
    logprobs, _ = token_logprobs(hidden, weight, None, torch.arange(7) % vocabulary, **settings)
    monkeypatch.setattr(chunked_logprobs, "product", product)
    logprobs.sum().backward()
    assert sum(widths) == vocabulary
    assert set(widths[:-1]) == {width}
