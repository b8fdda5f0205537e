"""Cases of `test_fused_logprobs.py`, run in a process of their own: on a GPU, or else in Triton's interpreter."""

import pytest
import torch
from helpers.largest_tensor import LargestTensor

from fireopd.models import chunked_logprobs, fused_kernels, fused_logprobs
from fireopd.models.output_head import LogitTransform

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
T, D, V = 4, 5, 11
SETTINGS = {"temperature": 1.0, "entropy": True, "chunk_logits": 3 * V}


def inputs(dtype=torch.float32, bias=False, tokens=T, vocabulary=V):
    generator = torch.Generator().manual_seed(0)
    shapes = ((tokens, D), (vocabulary, D), (vocabulary,))
    leaves = [torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_() for shape in shapes]
    target_ids = torch.randint(vocabulary, (tokens,), generator=generator).to(DEVICE)
    return [*leaves[:2], leaves[2] if bias else None, target_ids]


def double(leaves):
    return [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]


def naive(states, weight, bias, target_ids, temperature=1.0, scale=1.0, cap=None):
    """Return values of the output layer, log-probabilities and entropies through probabilities."""
    values = states @ weight.T if bias is None else states @ weight.T + bias
    logits = scale * values if cap is None else cap * torch.tanh(scale * values / cap)
    p = (logits / temperature).softmax(-1)
    entropy = -torch.where(p > 0, p * p.clamp(min=1e-300).log(), 0.0).sum(-1)
    return values, p[torch.arange(len(p)), target_ids].log(), entropy


def loss(logprobs, entropies):
    return (logprobs * torch.linspace(-1, 1, len(logprobs), device=DEVICE)).sum() + 0.3 * entropies.sum()


def gradients(of, leaves):
    return torch.autograd.grad(of, [leaf for leaf in leaves if leaf is not None])


@pytest.mark.parametrize(
    ("dtype", "bias", "temperature", "chunk", "transform"),
    [
        (torch.float32, True, 1.0, 2 * V, ()),
        (torch.float32, False, 0.7, 10**6, (0.3, None)),
        (torch.float32, False, 0.8, 10**6, (0.7, 2.0)),
        (torch.bfloat16, True, 1.0, 10**6, ()),
        (torch.bfloat16, True, 1.6, 7 * T, (1.0, 1.5)),
    ],
)
def test_values_and_gradients_equal_reference_and_chunked_path(dtype, bias, temperature, chunk, transform):
    *leaves, target_ids = inputs(dtype, bias)
    given = SETTINGS | {"temperature": temperature, "chunk_logits": chunk, "transform": LogitTransform(*transform)}
    ours = fused_logprobs.token_logprobs(*leaves, target_ids, **given)
    chunked = chunked_logprobs.token_logprobs(*leaves, target_ids, **given)
    doubles = double(leaves)
    values, *expected = naive(*doubles, target_ids, temperature, *transform)
    for value, other, reference in zip(ours, chunked, expected, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad(loss(*expected), values, retain_graph=True)
    references = gradients(loss(*expected), doubles)
    # The gradient of the logits and the result are rounded to `dtype`, by eps / 2 each, the sums are not.
    # The interpreter truncates the former: eps.
    bounds = (slope.abs() @ doubles[1].abs(), slope.abs().T @ doubles[0].abs(), slope.abs().sum(0))
    for gradient, other, reference, bound in zip(
        gradients(loss(*ours), leaves), gradients(loss(*chunked), leaves), references, bounds, strict=False
    ):
        assert gradient.dtype == dtype
        limit = 1e-5 + (0 if dtype == torch.float32 else 1.5 * torch.finfo(dtype).eps * bound)
        assert ((gradient - reference).abs() <= limit).all()
        assert ((gradient - other).abs() <= 2 * limit).all()


def test_tiles_blocks_and_tails_of_a_larger_vocabulary(monkeypatch):
    """Three tiles of aligned width, each of several blocks, and a tail that fills neither."""
    monkeypatch.setattr(fused_kernels, "BLOCK", 64)
    *leaves, target_ids = inputs(tokens=2, vocabulary=300)
    given = SETTINGS | {"chunk_logits": 2 * 130}
    assert fused_logprobs.backward_columns(2, 260) == 128
    target_ids[:] = torch.tensor([127, 299])
    ours = fused_logprobs.token_logprobs(*leaves, target_ids, **given)
    chunked = chunked_logprobs.token_logprobs(*leaves, target_ids, **given)
    torch.testing.assert_close(ours, chunked, rtol=1e-5, atol=1e-5)
    results = (gradients(loss(*scores), leaves) for scores in (ours, chunked))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_impossible_and_certain_tokens_are_exact():
    """A bias of minus infinity excludes tokens, even the first tile; a large bias makes a token certain."""
    states, weight, _, _ = inputs()
    target_ids = torch.full((T,), 9, device=DEVICE)
    excluded = torch.arange(V, device=DEVICE) < 6
    bias = torch.zeros(V, device=DEVICE).masked_fill(excluded, -torch.inf).requires_grad_()
    given = SETTINGS | {"chunk_logits": T * 5}
    logprobs, entropies = fused_logprobs.token_logprobs(states, weight, bias, target_ids, **given)
    _, *expected = naive(*double((states, weight[~excluded], None)), target_ids - 6)
    torch.testing.assert_close((logprobs.double(), entropies.double()), tuple(expected), rtol=1e-5, atol=1e-5)
    impossible, _ = fused_logprobs.token_logprobs(states, weight, bias, target_ids - 9, **given)
    assert (impossible == -torch.inf).all()
    masked = torch.where(torch.zeros(T, dtype=torch.bool, device=DEVICE), impossible, 0.0)
    for total in (logprobs.sum() + entropies.sum(), masked.sum()):
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(total, (states, weight, bias)))
    certain = torch.zeros(V, device=DEVICE).index_fill_(0, torch.tensor([9], device=DEVICE), 500.0)
    logprobs, entropies = fused_logprobs.token_logprobs(states, weight, certain, target_ids, **given)
    assert logprobs.abs().max() == entropies.abs().max() == 0


def test_large_logits_do_not_overflow_and_nan_is_not_hidden():
    """Integers, so that logits of up to 50,000 are exact in float32."""
    states, weight, _, target_ids = inputs()
    states, weight = ((100 * leaf.detach()).round().requires_grad_() for leaf in (states, weight))
    ours = fused_logprobs.token_logprobs(states, weight, None, target_ids, **SETTINGS)
    logits = states.double() @ weight.double().T
    assert logits.abs().max() > 1e4
    expected = logits.log_softmax(-1)
    entropies = torch.special.entr(expected.exp()).sum(-1)
    expected = expected.gather(-1, target_ids[:, None]).squeeze(-1)
    torch.testing.assert_close((ours[0].double(), ours[1].double()), (expected, entropies), rtol=1e-6, atol=1e-5)
    assert all(gradient.isfinite().all() for gradient in gradients(loss(*ours), (states, weight)))
    states = states.detach().clone()
    states[1, 0] = torch.nan
    logprobs, entropies = fused_logprobs.token_logprobs(states, weight, None, target_ids, **SETTINGS)
    assert logprobs.isnan().tolist() == entropies.isnan().tolist() == [False, True, False, False]


def test_only_the_gradients_that_are_needed_are_computed():
    states, weight, bias, target_ids = inputs(bias=True)
    expected = torch.autograd.grad(naive(states, weight, bias, target_ids)[1].sum(), states)[0]
    frozen = weight.detach(), bias.detach()
    logprobs, none = fused_logprobs.token_logprobs(states, *frozen, target_ids, **SETTINGS | {"entropy": False})
    assert none is None
    torch.testing.assert_close(torch.autograd.grad(logprobs.sum(), states)[0], expected, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(naive(states, weight, bias, target_ids)[2].sum(), weight)[0]
    _, entropies = fused_logprobs.token_logprobs(states.detach(), weight, bias, target_ids, **SETTINGS)
    torch.testing.assert_close(torch.autograd.grad(entropies.sum(), weight)[0], expected, rtol=1e-5, atol=1e-5)


def test_empty_inputs_are_supported():
    states, weight, bias, target_ids = inputs(bias=True)
    logprobs, entropies = fused_logprobs.token_logprobs(states[:0], weight, bias, target_ids[:0], **SETTINGS)
    assert logprobs.shape == entropies.shape == (0,)
    logprobs.sum().backward()
    assert weight.grad.abs().sum() == bias.grad.abs().sum() == 0


def test_autocast_computes_in_bfloat16_with_float32_gradients():
    states, weight, _, target_ids = inputs()
    with torch.autocast(DEVICE, torch.bfloat16):
        mixed = fused_logprobs.token_logprobs(states, weight, None, target_ids, **SETTINGS)
    half = fused_logprobs.token_logprobs(states.bfloat16(), weight.bfloat16(), None, target_ids, **SETTINGS)
    assert all(torch.equal(one, other) for one, other in zip(mixed, half, strict=True))
    mixed[0].sum().backward()
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("chunk", [17, 13 * 17 // 2])
def test_memory_stays_within_the_chunk_size(monkeypatch, chunk):
    monkeypatch.setattr(fused_kernels, "fold", lambda *_: None)  # the interpreter makes tensors of bytes
    monkeypatch.setattr(fused_kernels, "to_gradient", lambda values, *_: values)
    *leaves, target_ids = inputs(tokens=13, vocabulary=17)
    with LargestTensor() as largest:
        scores = fused_logprobs.token_logprobs(*leaves, target_ids, **SETTINGS | {"chunk_logits": chunk})
        loss(*scores).backward()
    assert largest.size <= max(chunk, 17 * D) < 13 * 17


def test_kernels_read_each_logit_once_and_write_each_gradient_once(monkeypatch):
    """Count loads and stores in the interpreter; a GPU does not give them."""
    if DEVICE == "cuda":
        pytest.skip("needs the interpreter")
    from triton.runtime.interpreter import InterpreterBuilder

    moved = {"load": 0, "store": 0}

    def counting(kind, method):
        def count(builder, pointers, *given):
            mask = given[1] if kind == "store" else given[0]
            moved[kind] += int(mask.data.sum()) * pointers.get_element_ty().primitive_bitwidth // 8
            return method(builder, pointers, *given)

        return count

    for kind in moved:
        name = f"create_masked_{kind}"
        monkeypatch.setattr(InterpreterBuilder, name, counting(kind, getattr(InterpreterBuilder, name)))
    monkeypatch.setattr(fused_kernels, "BLOCK", 16)
    rows, width = 2, 37  # three blocks, the last one in part
    values, targets = torch.randn(rows, width), torch.tensor([3, 40])  # one target in the tile
    statistics = tuple(torch.full((rows,), value) for value in (-torch.inf, 0.0, 0.0, 0.0))
    fused_kernels.fold(values, targets, statistics, 0, LogitTransform(), 1.0)
    per_row = 3 * 4  # statistics
    assert moved == {"load": rows * (4 * width + per_row + 8) + 4, "store": rows * per_row + 4}
    moved.update(load=0, store=0)
    per_row, blocks = 4 * 4 + 8, 3  # normalizer, entropy, two gradients, target
    ones = torch.ones(rows)
    given = (targets, ones, ones, ones, ones, 0, LogitTransform(), 1.0, torch.bfloat16)
    gradient = fused_kernels.to_gradient(values, *given)
    assert gradient.dtype == torch.bfloat16
    assert moved == {"load": rows * (4 * width + blocks * per_row), "store": rows * 2 * width}
