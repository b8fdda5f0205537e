"""Compilation of the decoder layers of a model by `torch.compile`."""

import os
import shutil

import torch
from torch.compiler import config
from transformers.modeling_utils import PreTrainedModel

from fireopd import private_apis
from fireopd.errors import MissingResourceError, UserError
from fireopd.models.fused_logprobs import has_triton
from fireopd.models.kernels import Kernels
from fireopd.models.loading import load_config
from fireopd.models.model_size import layer_sizes

__all__ = ["check_compile", "compile_layers"]

VARIANTS = 64
"""Largest number of compiled variants of a layer: with and without gradients, one row or several, adapter on or off."""


def check_compile(key: str, path: str, device: torch.device, kernels: Kernels) -> None:
    """Check that the layers of a model can be compiled on a device, before it is loaded.

    Args:
        key: setting that asks for it.
        path: model folder, hub name or embedded model.
        device: device of the model.
        kernels: implementation of the layers.

    Raises:
        UserError: if its layers are not known or replaced by Liger, or a compiler is missing.
    """
    if kernels == "liger":
        problem = "torch.compile fuses the operations that Liger replaces"
        raise UserError(key, True, problem, "set it to false, or model.kernels to triton")
    if not layer_sizes(load_config(path, key))[0]:
        raise UserError(key, True, f"transformers does not name the decoder layers of {path}", "set it to false")
    if device.type == "cuda" and not has_triton():
        raise MissingResourceError(key, True, "Triton is not installed", "install triton, or set it to false")
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if not any(map(shutil.which, compilers)):
        problem = f"PyTorch compiles with {' or '.join(compilers)}, and neither is installed"
        raise MissingResourceError(key, True, problem, "install a C++ compiler, or set it to false")


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile the forward pass of each decoder layer, for any number of rows and tokens.

    Modules and parameters stay as they are, with their names. The first call of each variant compiles; all layers of an
    architecture share the result.

    Args:
        model: causal language model.
        backend: backend of `torch.compile`.
    """
    config.recompile_limit = max(config.recompile_limit, VARIANTS)  # beyond it, layers run uncompiled without an error
    names = private_apis.no_split_modules(model)
    for layer in model.modules():
        if type(layer).__name__ in names:
            layer.forward = torch.compile(layer.forward, backend=backend, dynamic=True)
