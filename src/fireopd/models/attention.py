"""Implementation of attention in a model: the choice of transformers, or the one that is set."""

from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers.modeling_utils import PreTrainedModel

from fireopd import private_apis
from fireopd.errors import MissingResourceError, UserError
from fireopd.models.loading import load_config
from fireopd.models.model_size import shapes_of

__all__ = ["Attention", "check_attention", "describe_attention", "use_attention"]

Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"]
"""Implementations of transformers. `sdpa` is that of PyTorch, which has a flash kernel of its own."""

PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Modules of the implementations that are separate packages, for GPUs and half precision only."""
REMEDY = "set it to sdpa, or leave it out"


def check_attention(key: str, attention: Attention | None, path: str, device: torch.device, dtype: str) -> None:
    """Check that a model can compute with an attention implementation, before it is loaded.

    Args:
        key: setting of the implementation.
        attention: implementation; None for the choice of transformers.
        path: model folder, hub name or embedded model.
        device: device of the model.
        dtype: dtype of its matrix products.

    Raises:
        UserError: if architecture, device or dtype do not support it, or its package is not installed.
    """
    if attention is None:
        return
    supported = _supported(path, key)
    if supported is not None and attention not in supported:
        problem = f"{path} supports {', '.join(supported)}"
        raise UserError(key, attention, problem, "set one of these, or leave it out")
    package = PACKAGES.get(attention)
    if package is None:
        return
    if device.type != "cuda":
        raise UserError(key, attention, f"it needs a GPU, and the run computes on {device.type}", REMEDY)
    if dtype == "float32":
        problem = "it computes in half precision only, and this model computes in float32"
        remedy = "set trainer.precision to bf16-mixed, model.sharding.param_dtype with FSDP2, or dtype of a teacher"
        raise UserError(key, attention, problem, remedy)
    if find_spec(package) is None:
        problem = f"the package {package.replace('_interface', '_3')} is not installed"
        raise MissingResourceError(key, attention, problem, f"install it, or {REMEDY}")


def use_attention(model: PreTrainedModel, key: str, attention: Attention | None) -> None:
    """Let a loaded model compute with an attention implementation; None leaves it as it is.

    Raises:
        UserError: if transformers refuses the implementation, or takes another one in its place.
    """
    if attention is None:
        return
    try:
        model.set_attn_implementation(attention)
    except (ImportError, ValueError) as error:
        problem = f"transformers refuses it ({str(error).splitlines()[0]})"
        raise UserError(key, attention, problem, REMEDY) from error
    taken = private_apis.attention_implementation(model.config)
    if taken != attention:
        raise UserError(key, attention, f"the model computes with {taken} all the same", REMEDY)


def describe_attention(attention: Attention | None, path: str, key: str) -> str:
    """Return a few words on the implementation that a model computes with."""
    if attention is not None:
        return f"attention by {attention}"
    try:
        chosen = private_apis.attention_implementation(shapes_of(load_config(path, key)).config)
    except Exception:  # of an architecture that cannot be constructed without memory
        chosen = None
    return f"attention by {chosen or 'the choice of transformers'}"


def _supported(path: str, key: str) -> list[str] | None:
    """Return the implementations that an architecture supports; None if it cannot be constructed without memory."""
    try:
        model: Any = shapes_of(load_config(path, key))
    except (AssertionError, AttributeError, ImportError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    return private_apis.supported_attention(model)
