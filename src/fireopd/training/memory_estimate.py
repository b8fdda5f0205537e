"""Parts of the memory of a process, and the sizes that they are computed from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

__all__ = ["Part", "available", "cache_per_token", "optimizer_bytes", "optimizer_step_bytes"]

PROBE_PARAMETERS = 2**16
"""Parameters of the step that measures the state of an optimizer; small tensors are not quantized."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the memory of a process."""

    name: str
    """Name of the part, for example `student: weights`."""
    size: int
    """Bytes."""
    formula: str
    """Formula of the size."""


def available(device: torch.device) -> int:
    """Return the memory of a GPU, or of this machine for the CPU, bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024


def optimizer_bytes(make_optimizer: Callable[[Iterable[Tensor]], Any]) -> float:
    """Return the bytes of optimizer state per parameter, measured by one step on a small tensor."""
    parameter = nn.Parameter(torch.zeros(PROBE_PARAMETERS))
    parameter.grad = torch.ones(PROBE_PARAMETERS)
    optimizer = make_optimizer([parameter])
    with torch.compiler.set_stance("force_eager"):  # optimizers of torchao compile their step, for minutes
        optimizer.step()
    state = optimizer.state[parameter].values()
    sizes = [_stored(x) for x in state if isinstance(x, Tensor) and x.numel() == PROBE_PARAMETERS]
    return sum(sizes) / PROBE_PARAMETERS


def _stored(tensor: Tensor) -> int:
    """Return the bytes of a tensor; those of its parts if it is quantized."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(_stored(getattr(tensor, name)) for name in names)


def optimizer_step_bytes(make_optimizer: Callable[[Iterable[Tensor]], Any]) -> int:
    """Return the bytes of intermediate results per parameter in a step on a GPU.

    Fused optimizers and those that loop over the parameters have none; those that compute on lists of tensors, the
    default of PyTorch on GPUs, hold a result for all parameters.
    """
    settings = make_optimizer([nn.Parameter(torch.zeros(1))]).defaults
    return 4 if "foreach" in settings and settings["foreach"] is not False and not settings.get("fused") else 0


def cache_per_token(config: PreTrainedConfig) -> int:
    """Return the numbers in the key-value cache of one token: a key and a value of every head in every layer."""
    text: Any = config.get_text_config()
    fields = text.to_dict()
    heads = fields.get("num_key_value_heads") or text.num_attention_heads
    size = fields.get("head_dim") or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * size
