"""Fingerprint of the weights of a model: tells whether a checkpoint's adapter belongs to them."""

import hashlib
from collections.abc import Iterable

from torch import Tensor

__all__ = ["fingerprint"]

SAMPLE = 64
"""Numbers of each tensor that count."""


def fingerprint(parameters: Iterable[Tensor]) -> str:
    """Return a digest of the shapes and of the first numbers of all parameters, in their order. Not for shards."""
    state = hashlib.sha256()
    for parameter in parameters:
        sample = parameter.detach().flatten()[:SAMPLE].float().cpu()
        state.update(f"{tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    return state.hexdigest()
