"""Grouped-query attention against a reference that loops over heads."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from fireopd.engines.hf.attention import ATTENTION_NAME, grouped_query_attention, use_grouped_query_attention


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
