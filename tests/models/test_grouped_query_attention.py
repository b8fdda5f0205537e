"""Grouped-query attention against a reference that loops over heads."""

import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from fireopd.models.grouped_query_attention import (
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
    ("device", "dtype", "groups", "autocast", "stored"),
    [
        ("cuda", torch.float32, 2, False, True),
        ("cuda", torch.float32, 6, False, False),
        ("cuda", torch.bfloat16, 2, False, False),
        ("cuda", torch.float32, 2, True, False),
        ("cpu", torch.float32, 2, False, False),
    ],
)
def test_only_float32_on_a_gpu_with_fewer_key_value_heads_stores_probabilities(
    monkeypatch, device, dtype, groups, autocast, stored
):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: autocast and kind == "cuda")
    query = SimpleNamespace(is_cuda=device == "cuda", dtype=dtype, shape=(1, 6, 4, 8))
    assert stores_probabilities(query, SimpleNamespace(shape=(1, groups, 4, 8))) == stored


def test_repeated_keys_and_values_compile_to_one_graph(monkeypatch):
    model = load_causal_lm("tiny/student", "x", "float32")
    monkeypatch.setattr(grouped_query_attention_module, "stores_probabilities", lambda *_: True)
    tokens = torch.arange(4, 12)[None]
    expected, layer = model(tokens).logits, model.model.layers[0]
    layer.forward = torch.compile(layer.forward, backend="eager", fullgraph=True)
    torch.testing.assert_close(model(tokens).logits, expected, atol=1e-4, rtol=1e-4)


def test_loaded_models_compute_by_it_and_without_cudnn(monkeypatch):
    torch.backends.cuda.enable_cudnn_sdp(True)
    use_grouped_query_attention.cache_clear()
    model, calls = load_causal_lm("tiny/student", "x", "float32"), []
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(
        grouped_query_attention_module, "stores_probabilities", lambda *heads: calls.append(len(heads)) and False
    )
    model(torch.tensor([[5, 6, 7]]))
    assert calls == [2] * model.config.num_hidden_layers


@pytest.mark.parametrize("name", ["DeepseekV32", "GlmMoeDsa"])
def test_sparse_attention_stays_sparse(tmp_path, name):
    """Architectures that select keys by an indexer build its mask for attention of the name `sdpa` only."""
    config = getattr(transformers, f"{name}Config", None)
    if config is None:
        pytest.skip(f"transformers has no {name}")
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 4}
    sizes |= {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16}
    sizes |= {"kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    sizes |= {"index_topk": 4, "index_head_dim": 16, "index_n_heads": 2, "pad_token_id": None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**sizes), attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(10)
    model.save_pretrained(tmp_path)
    tokens = torch.randint(0, 32, (2, 24))
    loaded = load_causal_lm(str(tmp_path), "x", "float32").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("setting", [{"dropout": 0.5}, {"cache": object()}])
def test_settings_of_transformers_attention_are_left_to_it(monkeypatch, setting):
    calls = []
    layer = nn.Module()

    def plain(*inputs, **settings):
        calls.append((inputs[0], settings))
        return torch.zeros(1), None

    monkeypatch.setattr(grouped_query_attention_module, "sdpa_attention_forward", plain)
    query, key = torch.randn(1, 4, 1, 8), torch.randn(1, 2, 3, 8)
    grouped_query_attention(layer, query, key, key, None, **setting)
    assert setting.items() <= calls[0][1].items()
    grouped_query_attention(layer, query, key, key, None, dropout=0.0)
    assert len(calls) == 1
    monkeypatch.setattr(grouped_query_attention_module, "stores_probabilities", lambda *_: True)
    grouped_query_attention(layer, query, key, key, None, **setting)
    assert (calls[1][0] is layer) == ("cache" in setting), "a cache is that of the layer"


def test_what_a_program_sets_after_the_first_model_stays():
    use_grouped_query_attention()
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_causal_lm("tiny/student", "x", "float32")
    assert torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)


def test_a_model_without_shared_heads_has_the_same_logits():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=16, n_layer=1, n_head=2)).eval()
    tokens = torch.tensor([[1, 2, 3]])
    model.set_attn_implementation("eager")
    expected = model(tokens).logits
    use_grouped_query_attention()
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(tokens).logits, expected)
