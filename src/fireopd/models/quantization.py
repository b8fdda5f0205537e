"""Weight-only quantization of frozen models with torchao: linear layers of the decoder in int8 or int4.

The embeddings and the output layer keep their dtype, and products are computed in the dtype of the model. Weights have
one scale and one zero point per output in int8, and a step and a middle per `GROUP_SIZE` inputs in int4. On a GPU, int4
packs two weights into a byte. A CPU has no fast kernel for it: weights are rounded to the same values and keep their
dtype.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from fireopd.errors import UserError, import_extra
from fireopd.models.loading import Dtype, load_causal_lm, load_config
from fireopd.models.model_size import count_parameters, dtype_size, shapes_of

__all__ = [
    "GROUP_SIZE",
    "Quantization",
    "check_quantization",
    "load_quantized",
    "quantized_bytes",
    "round_to_int4",
]

Quantization = Literal["int8", "int4"]
"""Dtype of the weights of linear layers."""
GROUP_SIZE = 32
"""Number of inputs that share a scale in int4: the smallest that the kernel of GPUs has."""


def check_quantization(
    key: str, name: str, quantization: Quantization, dtype: Dtype, device: torch.device, *, whole: bool
) -> None:
    """Raise `UserError` if a model cannot be quantized. Loads no weights.

    Args:
        key: setting that holds the model, for example `model.teachers.math`.
        name: model folder, hub name, or embedded model.
        quantization: dtype of the weights.
        dtype: dtype of all other parameters.
        device: device that the model is loaded to.
        whole: False if the model is sharded, or offloaded to the CPU.
    """
    place = f"{key}.quantization"
    import_extra("torchao.quantization", "torchao", place, quantization)
    if not whole:
        problem = "quantized weights can be neither sharded nor offloaded"
        raise UserError(place, quantization, problem, "set it to null, or keep whole models on each device")
    if quantization == "int8":
        return
    if device.type == "cuda" and dtype != "bfloat16":
        problem = f"the kernel of GPUs computes in bfloat16, and the dtype is {dtype}"
        raise UserError(place, quantization, problem, f"set {key}.dtype bfloat16, or quantization int8")
    if device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
        problem = "this GPU has no kernel for it, which Ampere and later GPUs have"
        raise UserError(place, quantization, problem, "set quantization int8")
    for layer, module in _linear_layers(shapes_of(load_config(name, key))).items():
        if module.in_features % GROUP_SIZE:
            problem = f"{layer} of {name} has {module.in_features} inputs, not a multiple of the group of {GROUP_SIZE}"
            raise UserError(place, quantization, problem, "set quantization int8")


def load_quantized(
    name: str, key: str, dtype: Dtype, quantization: Quantization, device: torch.device
) -> PreTrainedModel:
    """Load a causal language model, and move it to a device layer by layer, each of them quantized.

    Raises:
        UserError: if it cannot be loaded.
    """
    model = load_causal_lm(name, key, dtype)
    layers = _linear_layers(model)
    if quantization == "int4" and device.type != "cuda":
        for layer in layers.values():
            layer.weight.data = round_to_int4(layer.weight.data)
    else:
        api: Any = import_extra("torchao.quantization", "torchao", key, quantization)
        config = _config(api, quantization)
        api.quantize_(model, config, filter_fn=lambda _, layer: layer in layers, device=device)
    return model.to(device)  # type: ignore[arg-type] # transformers restricts its overload


def round_to_int4(weight: Tensor) -> Tensor:
    """Return weights rounded to the values that the int4 kernel of GPUs represents: minimum + n x step, n from 0 to 15.

    torchao's int4 for CPUs requires that zero is one of the values, which moves each group by up to half a step.

    Args:
        weight: float [N, K], K a multiple of `GROUP_SIZE`.
    """
    groups = weight.unflatten(-1, (-1, GROUP_SIZE))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = ((high - low) / 15).clamp(min=torch.finfo(weight.dtype).smallest_normal)
    middle = low + 8 * step  # the kernel stores the middle, in the dtype of the weights
    levels = ((groups - (middle - 8 * step)) / step).round().clamp(0, 15)
    return ((levels - 8) * step + middle).flatten(-2)


def _config(api: Any, quantization: Quantization) -> Any:
    if quantization == "int8":
        return api.Int8WeightOnlyConfig(set_inductor_config=False)
    settings = {"int4_packing_format": "tile_packed_to_4d", "set_inductor_config": False}
    return api.Int4WeightOnlyConfig(group_size=GROUP_SIZE, **settings)


def quantized_bytes(config: PreTrainedConfig, dtype: Dtype, quantization: Quantization) -> int:
    """Return the bytes of a quantized model on a GPU; a CPU does not pack int4."""
    layers, width = _linear_layers(shapes_of(config)).values(), dtype_size(dtype)
    linear, outputs = sum(layer.weight.numel() for layer in layers), sum(layer.out_features for layer in layers)
    others = (count_parameters(config) - linear) * width
    if quantization == "int8":
        return others + linear + outputs * (width + 1)
    return others + linear // 2 + 2 * width * (linear // GROUP_SIZE)


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Return the linear layers without the output layer, by name."""
    head: Any = model.get_output_embeddings()
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if module is not head}
