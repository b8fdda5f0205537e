"""Forward and backward pass of a 4B model by implementation of its layers and of the output layer."""

import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import torch

from fireopd.models.compiled_layers import compile_layers
from fireopd.models.kernels import Kernels, use_layer_kernels
from fireopd.models.scorer import CausalScorer
from gpu_checks.attention import synchronize
from gpu_checks.measure import attempt, release
from gpu_checks.passes import backward, update
from gpu_checks.random_models import random_model, random_rows
from gpu_checks.sizes import Row, Sizes

KERNELS: tuple[Kernels, ...] = ("torch", "triton", "liger")
"""Values of `model.kernels`; the last replaces layers of the model."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield a pass by each value of `model.kernels`, then one with compiled layers."""
    name, (rows, length) = "Qwen3-4B, bfloat16 parameters", sizes.update_shapes[-1]
    for chunk_logits in sizes.chunk_logits[:2]:
        shape = random_model("Qwen3-4B", sizes, torch.bfloat16)
        shape.model.gradient_checkpointing_enable()
        for kernels in KERNELS:
            case = f"{name}, kernels {kernels}, chunk_logits {chunk_logits}, {rows} x {length}"
            if not sizes.on_gpu and kernels != "torch":
                yield {"case": case, "skipped": "Skipped: these kernels are for GPUs."}
            elif kernels == "liger" and find_spec("liger_kernel") is None:
                yield {"case": case, "skipped": "Skipped: liger_kernel cannot be imported."}
            else:
                use_layer_kernels(shape.model, kernels)
                yield attempt(case, partial(update, sizes, shape, rows, length, kernels, chunk_logits))
            shape.model.zero_grad()
            release()
        del shape
        release()
    yield attempt(f"{name}, compiled layers, {rows} x {length}", partial(compiled, sizes, rows, length))


def compiled(sizes: Sizes, rows: int, length: int) -> Row:
    """Return time, peak and rate of a pass through compiled layers, and the seconds of the first one."""
    shape = random_model("Qwen3-4B", sizes, torch.bfloat16)
    shape.model.gradient_checkpointing_enable()
    compile_layers(shape.model, "inductor" if sizes.on_gpu else "eager")
    tokens, mask = random_rows(sizes, shape.model.config.vocab_size, rows, length)
    began = time.perf_counter()
    backward(sizes, CausalScorer(shape.model), tokens, mask)
    synchronize(sizes)
    seconds = time.perf_counter() - began
    return {"first s": seconds} | update(sizes, shape, rows, length)
