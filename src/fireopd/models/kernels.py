"""Implementations of log-probabilities and layers: PyTorch operations, or fused Triton kernels."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from fireopd.errors import MissingResourceError, UserError
from fireopd.models import chunked_logprobs, fused_logprobs
from fireopd.models.liger_layers import check_liger, use_liger
from fireopd.models.loading import load_config

__all__ = ["Kernels", "check_kernels", "describe_kernels", "token_logprobs", "use_layer_kernels"]

Kernels = Literal["torch", "triton", "liger"]
"""`torch`: operations of PyTorch on chunks of logits (`chunked_logprobs`). `triton`: one kernel for all operations
between two matrix products (`fused_logprobs`), for GPUs. `liger`: the same, and fused layers (`liger_layers`)."""

LOGPROBS: dict[Kernels, Callable[..., tuple[Tensor, Tensor | None]]] = {
    "torch": chunked_logprobs.token_logprobs,
    "triton": fused_logprobs.token_logprobs,
    "liger": fused_logprobs.token_logprobs,
}


def token_logprobs(kernels: Kernels) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function of an implementation, with the signature of `chunked_logprobs.token_logprobs`."""
    return LOGPROBS[kernels]


def describe_kernels(kernels: Kernels) -> str:
    """Return a few words on an implementation."""
    texts = {"torch": "PyTorch operations on chunks of logits", "triton": "fused Triton kernels"}
    texts["liger"] = f"{texts['triton']}, layers by Liger"
    return f"log-probabilities by {texts[kernels]}"


def check_kernels(key: str, kernels: Kernels, device: torch.device, path: str) -> None:
    """Check that a model can be computed by an implementation, before it is loaded.

    Args:
        key: setting of the implementation.
        kernels: implementation.
        device: device of the model.
        path: model folder, hub name or embedded model.

    Raises:
        UserError: if its device or its architecture cannot, or a package is missing.
    """
    if kernels == "torch":
        return
    if device.type != "cuda":
        raise UserError(key, kernels, f"the run computes on {device.type}", "set it to torch, or use a GPU")
    if not fused_logprobs.has_triton():
        raise MissingResourceError(key, kernels, "Triton is not installed", "install triton, or set it to torch")
    if kernels == "liger":
        check_liger(key, load_config(path, key).model_type)


def use_layer_kernels(model: PreTrainedModel, kernels: Kernels) -> None:
    """Replace the layers of a model by those of an implementation, if it has any."""
    if kernels == "liger":
        use_liger(model)
