"""Attention implementations of student and teachers."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AttentionInterface, BloomConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fireopd import private_apis
from fireopd.errors import MissingResourceError, UserError
from fireopd.models import attention
from fireopd.models.attention import check_attention, describe_attention, use_attention
from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer

CPU, GPU = torch.device("cpu"), torch.device("cuda")
KEY = "model.attn_implementation"


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "message"),
    [
        ("flash_attention_2", CPU, "bfloat16", "it needs a GPU, and the run computes on cpu"),
        ("flash_attention_2", GPU, "float32", "in half precision only, and this model computes in float32"),
        ("flash_attention_2", GPU, "bfloat16", "the package flash_attn is not installed"),
        ("flash_attention_3", GPU, "bfloat16", "the package flash_attn_3 is not installed"),
    ],
)
def test_flash_attention_that_cannot_run_is_refused(asked, device, dtype, message):
    with pytest.raises(UserError, match=message) as raised:
        check_attention(KEY, asked, "tiny/student", device, dtype)
    assert isinstance(raised.value, MissingResourceError) == ("not installed" in message)


def test_implementations_that_an_architecture_lacks_are_refused(monkeypatch):
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2)
    monkeypatch.setattr(attention, "load_config", lambda *names: config)
    with pytest.raises(UserError, match="flash_attention_2': bloom supports eager. Set one of these"):
        check_attention(KEY, "flash_attention_2", "bloom", GPU, "bfloat16")
    assert describe_attention(None, "bloom", KEY) == "attention by eager"


@pytest.mark.parametrize("asked", [None, "sdpa", "eager"])
def test_what_every_machine_can_compute_is_accepted(asked):
    check_attention(KEY, asked, "tiny/student", CPU, "float32")
    assert describe_attention(asked, "tiny/student", KEY) == f"attention by {asked or 'sdpa'}"


def test_a_model_computes_with_the_implementation(monkeypatch):
    tokens, calls = torch.arange(9)[None], []

    def flash(*given, **settings):
        calls.append(1)
        return sdpa_attention_forward(*given, **settings)

    model = load_causal_lm("tiny/student", "x", "float32")
    own = CausalScorer(model)(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs
    names = list(model.state_dict())
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", flash)
    use_attention(model, KEY, "eager")
    eager = CausalScorer(model)(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs
    assert not calls
    use_attention(model, KEY, "sdpa")
    CausalScorer(model)(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert len(calls) == model.config.num_hidden_layers
    torch.testing.assert_close(eager, own, rtol=0, atol=1e-4)
    assert list(model.state_dict()) == names


def test_flash_attention_that_transformers_replaces_or_refuses_is_an_error(monkeypatch):
    model = load_causal_lm("tiny/student", "x", "float32")
    with pytest.raises(UserError, match="transformers refuses it"):
        use_attention(model, KEY, "flash_attention_2")
    replaced = SimpleNamespace(config=model.config, set_attn_implementation=lambda name: None)
    with pytest.raises(UserError, match="the model computes with sdpa all the same"):
        use_attention(replaced, KEY, "flash_attention_2")
    assert private_apis.attention_implementation(model.config) == "sdpa"
