"""Time, peak memory and arithmetic of a piece of work."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gpu_checks.sizes import Row, Sizes

PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "H800": 989.4, "A100": 312.0, "B200": 2250.0, "L40S": 362.0}
"""Dense bfloat16 rates of data sheets, TFLOP/s, by a part of the card's name."""


def measure(sizes: Sizes, work: Callable[[], object], repeats: int | None = None) -> Row:
    """Return the median milliseconds and, on a GPU, the peak memory of some work after one run that is not counted."""
    work()
    if sizes.on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times = [_milliseconds(sizes, work) for _ in range(repeats or sizes.repeats)]
    row: Row = {"ms": statistics.median(times)}
    if sizes.on_gpu:
        row["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def _milliseconds(sizes: Sizes, work: Callable[[], object]) -> float:
    if not sizes.on_gpu:
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def attempt(case: str, work: Callable[[], Row]) -> Row:
    """Return the row of a case, or its error; the memory of a failed case is released."""
    try:
        return {"case": case, **work()}
    except Exception as error:  # a case that fails is a result
        text = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    release()
    return {"case": case, "error": text[:300]}


def release() -> None:
    """Release cached memory of the GPU."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def held(sizes: Sizes) -> Row:
    """Return the memory that is allocated now; empty on a CPU."""
    return {"held GB": torch.cuda.memory_allocated() / 1e9} if sizes.on_gpu else {}


def utilization(sizes: Sizes, tflop: float, milliseconds: float) -> Row:
    """Return the rate of some arithmetic and, for a known card, its share of the card's dense bfloat16 rate."""
    rate = tflop / (milliseconds / 1e3)
    name = torch.cuda.get_device_name() if sizes.on_gpu else ""
    peak = next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
    return {"TFLOP/s": rate} | ({} if peak is None else {"MFU": rate / peak})


def model_tflop(config: Any, parameters: int, rows: int, length: int, *, backward: bool) -> float:
    """Return the arithmetic of a decoder: 2 N per token and causal attention, three times that with a backward pass.

    Args:
        config: configuration of the model.
        parameters: parameters that a token uses, with the output layer, without a separate input embedding.
        rows: rows of the batch.
        length: tokens per row.
        backward: whether there is a backward pass; recomputation is not counted.
    """
    width = config.num_attention_heads * config.head_dim
    attention = 2 * rows * length**2 * width * config.num_hidden_layers  # two products, half of them masked
    return (2 * parameters * rows * length + attention) * (3 if backward else 1) / 1e12


def differences(found: torch.Tensor, expected: torch.Tensor) -> Row:
    """Return mean, 95th percentile and maximum of the absolute differences of two tensors."""
    gaps = (found.detach().double().cpu() - expected.detach().double().cpu()).abs().flatten()
    return {"mean |diff|": gaps.mean().item(), "p95 |diff|": _quantile(gaps, 0.95), "max |diff|": gaps.max().item()}


def _quantile(values: torch.Tensor, share: float) -> float:
    return values.sort().values[min(len(values) - 1, int(share * len(values)))].item()


def relative_difference(found: Iterator[torch.Tensor], expected: Iterator[torch.Tensor]) -> float:
    """Return the norm of the difference of two lists of tensors over that of the second."""
    above = below = 0.0
    for one, other in zip(found, expected, strict=True):
        one, other = one.detach().double(), other.detach().to(one.device).double()
        above, below = above + (one - other).square().sum().item(), below + other.square().sum().item()
    return (above / max(below, 1e-300)) ** 0.5
