"""Question 1: kernels of grouped-query attention, causal, without a mask, and their cost at a new length."""

import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gpu_checks.measure import attempt, measure, release
from gpu_checks.sizes import Row, Sizes

KERNELS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cuDNN": "CUDNN_ATTENTION", "math": "MATH"}
"""Kernels of PyTorch by the names of this table."""
NEW_LENGTHS = 8
"""Lengths at which a first pass is timed."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield forward and backward pass by dtype, length and kernel; the default first."""
    shortest = sizes.attention_lengths[0]
    for length in sizes.attention_lengths:
        for dtype in (torch.bfloat16, torch.float32):
            if dtype == torch.float32 and length > shortest:
                continue
            name = f"{str(dtype).removeprefix('torch.')}, {length} tokens"
            yield attempt(f"{name}, default", partial(grouped, sizes, dtype, length, None))
            release()
            if length > shortest:
                continue
            for kernel in KERNELS:
                yield attempt(f"{name}, {kernel}", partial(grouped, sizes, dtype, length, kernel))
                release()
    name = f"float32, {shortest} tokens, keys and values repeated, default"
    yield attempt(name, partial(grouped, sizes, torch.float32, shortest, None, repeated=True))
    for kernel in ("cuDNN", "flash"):
        case = f"bfloat16, {NEW_LENGTHS} lengths near {shortest}, {kernel}"
        yield attempt(case, partial(new_lengths, sizes, kernel))


def grouped(sizes: Sizes, dtype: torch.dtype, length: int, kernel: str | None, *, repeated: bool = False) -> Row:
    """Return time and peak of one forward and backward pass; with the default kernel, also its name."""
    heads, groups, size = sizes.heads
    kv_heads = heads if repeated else groups
    inputs = random_inputs(sizes, (heads, kv_heads, size), dtype, length)

    def work() -> None:
        with using(kernel):
            output = scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=not repeated)
        torch.autograd.grad(output.sum(), inputs)

    row = measure(sizes, work)
    return row | ({"kernel": chosen_kernel(inputs, not repeated)} if kernel is None else {})


def random_inputs(sizes: Sizes, heads: tuple[int, int, int], dtype: torch.dtype, length: int) -> list[Tensor]:
    """Return queries, keys and values of one row, float [1, heads, length, size]."""
    queries, keys, size = heads
    shapes = [(1, number, length, size) for number in (queries, keys, keys)]
    return [torch.randn(shape, device=sizes.device, dtype=dtype, requires_grad=True) for shape in shapes]


def using(kernel: str | None) -> AbstractContextManager[None]:
    """Return a context in which PyTorch takes a kernel; None for its own choice."""
    return nullcontext() if kernel is None else sdpa_kernel([getattr(SDPBackend, KERNELS[kernel])])


def new_lengths(sizes: Sizes, kernel: str) -> Row:
    """Return the median milliseconds of a first and a second forward and backward pass, over lengths of their own."""
    first, second = list[float](), list[float]()
    length = sizes.attention_lengths[0]
    # The first length pays for the library as well, and is not counted.
    for number in range(NEW_LENGTHS + 1):
        inputs = random_inputs(sizes, sizes.heads, torch.bfloat16, length - 1 - number * max(1, length // 512))
        for times in (first, second):
            synchronize(sizes)
            began = time.perf_counter()
            with using(kernel):
                output = scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
            torch.autograd.grad(output.sum(), inputs)
            synchronize(sizes)
            times.append(1e3 * (time.perf_counter() - began))
    return {"first ms": statistics.median(first[1:]), "ms": statistics.median(second[1:])}


def synchronize(sizes: Sizes) -> None:
    """Wait for the device."""
    if sizes.on_gpu:
        torch.cuda.synchronize()


def chosen_kernel(inputs: list[Tensor], grouped_queries: bool) -> str:
    """Return the name of the kernel that PyTorch takes by default, or `?` if this version does not tell."""
    try:
        number = torch._fused_sdp_choice(*inputs, None, 0.0, True, scale=None, enable_gqa=grouped_queries)
        return next(name for name, member in SDPBackend.__members__.items() if member.value == number)
    except Exception:  # a private function of PyTorch, which has no public one
        return "?"
