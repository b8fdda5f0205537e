"""Size of a model that is not loaded."""

import json
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

__all__ = ["count_parameters", "dtype_size", "without_memory"]


def without_memory(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model whose parameters have shapes and no memory (meta device).

    Raises:
        ValueError: if transformers has no causal language model of this configuration.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def count_parameters(config: PreTrainedConfig) -> int:
    """Return the number of a model's parameters, tied ones counted once; allocate nothing."""
    kind: Any = type(config)
    return _count(kind, config.to_json_string(use_diff=False))


@cache
def _count(kind: Any, settings: str) -> int:
    return int(without_memory(kind.from_dict(json.loads(settings))).num_parameters())


def dtype_size(dtype: str) -> int:
    """Return the bytes of one number of a dtype, given by its name."""
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size()
