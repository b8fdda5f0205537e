"""Architectures that are refused by their configuration, before any weights are loaded."""

import pytest
import transformers

from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.models.architecture import check_architecture, is_recurrent
from fireopd.teachers import HFTeacher

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
STATE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1}
REFUSED = {
    "Qwen2_5_VL": ({}, "transformers has no causal language model of the type qwen2_5_vl"),
    "Mistral3": ({}, "transformers has no causal language model of the type mistral3"),
    "T5": ({}, "transformers has no causal language model of the type t5"),
    "Bert": (SMALL, "bert also attends to later tokens"),
    "InklingText": ({}, "it removes the paddings of its vocabulary from its logits"),
    "Mpt": ({"logit_scale": 0.5}, "transformers ignores its logit_scale"),
}
ACCEPTED = {
    "Llama": SMALL,
    "GPTNeoX": SMALL,
    "Bert": SMALL | {"is_decoder": True},
    "Llama4Text": SMALL | {"head_dim": 8, "pad_token_id": 0, "num_local_experts": 2, "intermediate_size_mlp": 24},
    "Mamba": STATE,
}


def of(monkeypatch, family, settings):
    config = getattr(transformers, f"{family}Config")(**settings)
    for place in ("models.architecture", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_config", lambda *arguments: config)
    return config


@pytest.mark.parametrize("family", REFUSED)
def test_unsupported_architectures_are_named(monkeypatch, family):
    settings, problem = REFUSED[family]
    of(monkeypatch, family, settings)
    with pytest.raises(UserError, match=f"model.student: 'some/model': {problem}"):
        check_architecture("some/model", "model.student")
    with pytest.raises(UserError, match=f"model.teachers.math.path: 'some/model': {problem}"):
        HFTeacher("some/model").check("model.teachers.math", "tiny/student", [], 8)


@pytest.mark.parametrize("family", ACCEPTED)
def test_other_architectures_are_constructed_without_memory(monkeypatch, family):
    of(monkeypatch, family, ACCEPTED[family])
    check_architecture("some/model", "model.student")


@pytest.mark.parametrize(("family", "settings"), [("Mamba", STATE), ("Rwkv", STATE | {"attention_hidden_size": 16})])
def test_recurrent_students_cannot_be_decoded_by_the_engine(monkeypatch, family, settings):
    assert is_recurrent(of(monkeypatch, family, settings))
    with pytest.raises(UserError, match="data.engine: 'HFEngine': some/model caches more than keys and values"):
        HFEngine().check("data.engine", "some/model")


def test_composite_models_are_not_the_engines_problem(monkeypatch):
    of(monkeypatch, "Qwen2_5_VL", {})
    HFEngine().check("data.engine", "some/model")
