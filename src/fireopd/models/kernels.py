"""Implementations of the log-probabilities of tokens: PyTorch operations in chunks, or fused Triton kernels."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fireopd.errors import MissingResourceError, UserError
from fireopd.models import chunked_logprobs, fused_logprobs

__all__ = ["Kernels", "check_kernels", "describe_kernels", "token_logprobs"]

Kernels = Literal["torch", "triton"]
"""`torch`: operations of PyTorch on chunks of logits (`chunked_logprobs`). `triton`: one kernel for all operations
between two matrix products (`fused_logprobs`), for GPUs."""

LOGPROBS: dict[Kernels, Callable[..., tuple[Tensor, Tensor | None]]] = {
    "torch": chunked_logprobs.token_logprobs,
    "triton": fused_logprobs.token_logprobs,
}


def token_logprobs(kernels: Kernels) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function of an implementation, with the signature of `chunked_logprobs.token_logprobs`."""
    return LOGPROBS[kernels]


def describe_kernels(kernels: Kernels) -> str:
    """Return a few words on an implementation."""
    texts = {"torch": "PyTorch operations on chunks of logits", "triton": "fused Triton kernels"}
    return f"log-probabilities by {texts[kernels]}"


def check_kernels(key: str, kernels: Kernels, device: torch.device) -> None:
    """Raise `UserError` if a device cannot run an implementation.

    Args:
        key: setting of the implementation.
        kernels: implementation.
        device: device of the model.
    """
    if kernels != "triton":
        return
    if device.type != "cuda":
        raise UserError(key, kernels, f"the run computes on {device.type}", "set it to torch, or use a GPU")
    if not fused_logprobs.has_triton():
        raise MissingResourceError(key, kernels, "Triton is not installed", "install triton, or set it to torch")
