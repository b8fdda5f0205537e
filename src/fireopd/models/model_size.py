"""Size of a model that is not loaded."""

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

__all__ = ["count_parameters", "dtype_size"]


def count_parameters(config: PreTrainedConfig) -> int:
    """Return the number of a model's parameters, tied ones counted once; allocate nothing."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def dtype_size(dtype: str) -> int:
    """Return the bytes of one number of a dtype, given by its name."""
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size()
