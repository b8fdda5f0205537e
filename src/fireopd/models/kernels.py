"""Implementations of the log-probabilities of tokens: PyTorch operations in chunks, or fused Triton kernels."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fireopd.errors import UserError
from fireopd.models import chunked_logprobs, fused_logprobs

__all__ = ["Kernels", "check_kernels", "describe_kernels", "token_logprobs"]

Kernels = Literal["auto", "torch", "triton"]
"""`torch`: operations of PyTorch on chunks of logits (`chunked_logprobs`). `triton`: one kernel for all operations
between two matrix products (`fused_logprobs`), for GPUs. `auto`: `triton` on a GPU with Triton, else `torch`."""

LOGPROBS: dict[Kernels, Callable[..., tuple[Tensor, Tensor | None]]] = {
    "torch": chunked_logprobs.token_logprobs,
    "triton": fused_logprobs.token_logprobs,
}


def token_logprobs(kernels: Kernels, device: torch.device) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function with the signature of `chunked_logprobs.token_logprobs` that a choice gives on a device."""
    return LOGPROBS[_resolve(kernels, device)]


def _resolve(kernels: Kernels, device: torch.device) -> Kernels:
    if kernels != "auto":
        return kernels
    return "triton" if device.type == "cuda" and fused_logprobs.has_triton() else "torch"


def describe_kernels(kernels: Kernels, device: torch.device) -> str:
    """Return a few words on the implementation that a choice gives on a device."""
    texts = {"torch": "PyTorch operations on chunks of logits", "triton": "fused Triton kernels"}
    return f"log-probabilities by {texts[_resolve(kernels, device)]}"


def check_kernels(key: str, kernels: Kernels, device: torch.device) -> None:
    """Raise `UserError` if the device cannot run the kernels of a choice.

    Args:
        key: setting of the choice.
        kernels: choice.
        device: device of the model.
    """
    if kernels != "triton":
        return
    if device.type != "cuda":
        raise UserError(key, kernels, f"the run computes on {device.type}", "set it to auto, or use a GPU")
    if not fused_logprobs.has_triton():
        raise UserError(key, kernels, "Triton is not installed", "install triton, or set it to torch")
