"""Size of a model that is not loaded."""

import json
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from fireopd import private_apis

__all__ = ["architecture_of", "count_parameters", "dtype_size", "layer_sizes", "shapes_of", "without_memory"]


def without_memory(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a new model whose parameters have shapes and no memory (meta device).

    Raises:
        ValueError: if transformers has no causal language model of this configuration.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def shapes_of(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model without memory to look at; the same one for all models of an architecture.

    Raises:
        ValueError: if transformers has no causal language model of this configuration.
    """
    kind: Any = type(config)
    return _shapes(kind, architecture_of(config))


def architecture_of(config: PreTrainedConfig) -> str:
    """Return all settings of a configuration as JSON, without the name of the model."""
    fields = json.loads(config.to_json_string(use_diff=False))
    return json.dumps({name: value for name, value in fields.items() if name != "_name_or_path"})


def count_parameters(config: PreTrainedConfig) -> int:
    """Return the number of a model's parameters, tied ones counted once; allocate nothing."""
    kind: Any = type(config)
    return _sizes(kind, architecture_of(config))[0]


def layer_sizes(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the parameters of the largest decoder layer, and of all that is not in a decoder layer."""
    kind: Any = type(config)
    return _sizes(kind, architecture_of(config))[1:]


@lru_cache(maxsize=4)
def _shapes(kind: Any, settings: str) -> PreTrainedModel:
    return without_memory(kind.from_dict(json.loads(settings)))


@lru_cache(maxsize=64)
def _sizes(kind: Any, settings: str) -> tuple[int, int, int]:
    """Return the parameters of a model, of its largest decoder layer, and outside of decoder layers."""
    model = _shapes(kind, settings)
    names = private_apis.no_split_modules(model)
    layers = [sum(p.numel() for p in m.parameters()) for m in model.modules() if type(m).__name__ in names]
    total = int(model.num_parameters())
    return total, max(layers, default=0), total - sum(layers)


def dtype_size(dtype: str) -> int:
    """Return the bytes of one number of a dtype, given by its name."""
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size()
