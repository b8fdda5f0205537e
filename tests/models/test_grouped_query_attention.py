"""Grouped-query attention against a reference that loops over heads."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from fireopd.models.grouped_query_attention import (
    ATTENTION_NAME,
    grouped_query_attention,
    stores_probabilities,
    use_grouped_query_attention,
)
from fireopd.models.loading import load_causal_lm

grouped_query_attention_module = sys.modules[grouped_query_attention.__module__]


def naive(query, key, value, mask, scaling):
    rows, heads, queries, _ = query.shape
    attended = torch.zeros(rows, queries, heads, value.shape[-1])
    for row in range(rows):
        for head in range(heads):
            group = head * key.shape[1] // heads
            scores = query[row, head] @ key[row, group].T * scaling
            if mask is not None:
                scores = scores.masked_fill(~mask[row, 0], -torch.inf)
            attended[row, :, head] = scores.softmax(-1) @ value[row, group]
    return attended


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_query_attention_equals_the_reference(queries, heads, shared, masked):
    torch.manual_seed(0)
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = heads // shared, False
    query, key, value = torch.randn(3, heads, queries, 8), torch.randn(3, shared, 9, 8), torch.randn(3, shared, 9, 6)
    mask = None
    if masked:
        mask = (torch.arange(9) >= torch.tensor([0, 3, 8])[:, None])[:, None, None].expand(3, 1, queries, 9)
    attended, _ = grouped_query_attention(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(attended, naive(query, key, value, mask, 0.3), atol=1e-6, rtol=1e-5)


def test_repeated_keys_and_values_give_the_same_attention_and_gradients(monkeypatch):
    """As on a GPU in float32, where PyTorch would store all attention probabilities of grouped queries."""
    torch.manual_seed(0)
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = 3, True
    given = [torch.randn(2, heads, 7, 8, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2)]
    grouped, calls = [], []

    def attention(*inputs, enable_gqa=False, **settings):
        calls.append((enable_gqa, inputs[1].shape[1]))
        return scaled_dot_product_attention(*inputs, enable_gqa=enable_gqa, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    for repeated in (False, True):
        monkeypatch.setattr(grouped_query_attention_module, "stores_probabilities", lambda *_, own=repeated: own)
        attended, _ = grouped_query_attention(module, *given, None, scaling=0.3)
        weights = torch.linspace(-1, 1, attended.numel(), dtype=torch.float64).view_as(attended)
        grouped.append([attended.detach(), *torch.autograd.grad((attended * weights).sum(), given)])
    assert calls == [(True, 2), (False, 6)]
    for own, expected in zip(*reversed(grouped), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-12, rtol=1e-12)
    visible = torch.ones(7, 7, dtype=torch.bool).tril()[None, None].expand(2, 1, 7, 7)
    torch.testing.assert_close(grouped[1][0].float(), naive(*(x.float() for x in given), visible, 0.3))


@pytest.mark.parametrize(
    ("device", "dtype", "groups", "stored"),
    [
        ("cuda", torch.float32, 2, True),
        ("cuda", torch.float32, 6, False),
        ("cuda", torch.bfloat16, 2, False),
        ("cpu", torch.float32, 2, False),
    ],
)
def test_only_float32_on_a_gpu_with_fewer_key_value_heads_stores_probabilities(device, dtype, groups, stored):
    query = SimpleNamespace(is_cuda=device == "cuda", dtype=dtype, shape=(1, 6, 4, 8))
    assert stores_probabilities(query, SimpleNamespace(shape=(1, groups, 4, 8))) == stored


def test_loaded_models_compute_by_it_and_without_cudnn():
    torch.backends.cuda.enable_cudnn_sdp(True)
    model = load_causal_lm("tiny/student", "x", "float32")
    assert model.config._attn_implementation == ATTENTION_NAME
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_saved_model_does_not_name_it(tmp_path):
    load_causal_lm("tiny/student", "x", "float32").save_pretrained(tmp_path)
    assert ATTENTION_NAME not in (tmp_path / "config.json").read_text()


def test_only_models_with_sdpa_attention_are_changed():
    small = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    for kind, expected in (("sdpa", ATTENTION_NAME), ("eager", "eager")):
        model = Qwen3ForCausalLM._from_config(Qwen3Config(**small), attn_implementation=kind)
        use_grouped_query_attention(model)
        assert model.config._attn_implementation == expected
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=16, n_layer=1, n_head=2)).eval()
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens).logits
    use_grouped_query_attention(model)
    torch.testing.assert_close(model(tokens).logits, before)
