"""Card, versions, and the highest rates of a matrix product and of a copy."""

import os
import platform
from collections.abc import Iterator
from importlib import metadata

import torch

from gpu_checks.measure import attempt, measure
from gpu_checks.sizes import Row, Sizes

PACKAGES = ("torch", "transformers", "lightning", "triton", "trl", "fireopd")
"""Packages whose versions are reported."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the machine, then its rates."""
    yield {"case": "machine", **describe(sizes)}
    yield attempt(f"matrix product, bfloat16, {sizes.matmul} x {sizes.matmul}", lambda: matrix_product(sizes))
    yield attempt(f"copy of {sizes.copy_bytes / 1e9:.3g} GB", lambda: copy(sizes))


def describe(sizes: Sizes) -> Row:
    """Return names, memory and versions as text."""
    versions = {name: _version(name) for name in PACKAGES}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    about = f"{len(os.sched_getaffinity(0))} CPU cores, Python {platform.python_version()}; {shown}"
    if not sizes.on_gpu:
        return {"device": "CPU", "software": about}
    properties = torch.cuda.get_device_properties(sizes.device)
    precision = torch.backends.cuda.matmul.allow_tf32
    about += f"; CUDA {torch.version.cuda}, TF32 {'on' if precision else 'off'}"
    return {"device": properties.name, "memory GB": properties.total_memory / 1e9, "software": about}


def matrix_product(sizes: Sizes) -> Row:
    """Return time and rate of a square bfloat16 product."""
    a, b = (torch.randn(sizes.matmul, sizes.matmul, device=sizes.device, dtype=torch.bfloat16) for _ in range(2))
    row = measure(sizes, lambda: a @ b, repeats=10)
    return {"ms": row["ms"], "TFLOP/s": 2 * sizes.matmul**3 / 1e12 / (row["ms"] / 1e3)}


def copy(sizes: Sizes) -> Row:
    """Return time and bandwidth of a copy, bytes read and written."""
    source = torch.ones(sizes.copy_bytes, dtype=torch.uint8, device=sizes.device)
    target = torch.empty_like(source)
    row = measure(sizes, lambda: target.copy_(source), repeats=5)
    return {"ms": row["ms"], "TB/s": 2 * sizes.copy_bytes / 1e12 / (row["ms"] / 1e3)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
