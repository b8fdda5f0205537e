"""Size of a model that is not loaded."""

import pytest
from transformers import Qwen3Config

from fireopd.models import model_size
from fireopd.models.model_size import count_parameters, layer_sizes, shapes_of, without_memory

SMALL = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 24}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_of_layers_and_outside(tied):
    config = Qwen3Config(**SMALL, **HEADS, tie_word_embeddings=tied)
    layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16 + 2 * 8
    outside = 41 * 16 * (1 if tied else 2) + 16
    assert layer_sizes(config) == (layer, outside)
    assert count_parameters(config) == 3 * layer + outside


def test_an_architecture_is_constructed_once_for_all_models(monkeypatch):
    made = []

    def count(config):
        made.append(config)
        return without_memory(config)

    monkeypatch.setattr(model_size, "without_memory", count)
    for name in ("one", "another"):
        config = Qwen3Config(**SMALL, **HEADS, initializer_range=0.0123)
        config._name_or_path = name
        assert (count_parameters(config), layer_sizes(config), shapes_of(config).config.vocab_size)[2] == 41
    assert len(made) == 1
