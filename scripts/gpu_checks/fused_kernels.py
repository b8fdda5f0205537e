"""Fused Triton kernels of the output layer against the chunked path: differences, time and memory."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fireopd.models import chunked_logprobs, fused_logprobs
from fireopd.models.output_head import LogitTransform
from gpu_checks.measure import attempt, differences, measure, relative_difference, release, utilization
from gpu_checks.output_layer import Scores, Way, gradients, inputs
from gpu_checks.sizes import Row, Sizes

PATHS: dict[str, ModuleType] = {"chunked": chunked_logprobs, "fused": fused_logprobs}
"""Implementations of `token_logprobs`."""
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 1.0},
    "soft-cap 5, scale 0.5, temperature 0.7": {"temperature": 0.7, "transform": LogitTransform(0.5, 5.0)},
}
"""Settings of the logits."""


INTERPRETED = {"head_tokens": 2, "reference_tokens": 2, "vocabulary": 24, "chunk_logits": (36,)}
"""Sizes without a GPU: the interpreter takes some milliseconds per token and chunk."""
PROGRAM = """
import json
from gpu_checks import fused_kernels, sizes
for row in fused_kernels.rows(sizes.Sizes.small("cpu")):
    print(json.dumps(row))
"""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the rows of this process or, without a GPU, of one that interprets the kernels."""
    if sizes.on_gpu:
        yield from rows(sizes)
        return
    scripts = Path(__file__).parents[1]
    # Triton reads the variable when it is imported.
    own = {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(map(str, (scripts, scripts.parent / "src")))}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    yield from map(json.loads, done.stdout.splitlines())
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def rows(sizes: Sizes) -> Iterator[Row]:
    """Yield differences of values and gradients from the chunked path, then time and peak of both by chunk size."""
    sizes = sizes if sizes.on_gpu else replace(sizes, **INTERPRETED)
    for dtype in (torch.float32, torch.bfloat16):
        for name, settings in SETTINGS.items():
            case = f"difference, {str(dtype).removeprefix('torch.')}, {name}"
            yield attempt(case, partial(gaps, sizes, dtype, settings))
            release()
    tflop = 2 * sizes.head_tokens * sizes.head_width * sizes.vocabulary / 1e12
    for size in sizes.chunk_logits:
        for name in PATHS:
            yield attempt(f"{name}, {size} logits, bfloat16", partial(timed, sizes, name, size, tflop))
            release()


def scores(path: str, size: int, settings: dict[str, Any], hidden: Tensor, weight: Tensor, targets: Tensor) -> Scores:
    """Return log-probabilities and entropies."""
    given = {"entropy": True, "chunk_logits": size, **settings}
    logprobs, entropies = PATHS[path].token_logprobs(hidden, weight, None, targets, **given)
    return logprobs, entropies


def gaps(sizes: Sizes, dtype: torch.dtype, settings: dict[str, Any]) -> Row:
    """Return the differences of log-probabilities and entropies, and the relative difference of the gradients."""
    given = inputs(sizes, sizes.reference_tokens, dtype)
    chunked, fused = (partial(scores, path, sizes.chunk_logits[0], settings) for path in PATHS)
    with torch.no_grad():
        (logprobs, entropies), (own_logprobs, own_entropies) = chunked(*given), fused(*given)
    relative = relative_difference(iter(gradients(fused, *given)), iter(gradients(chunked, *given)))
    of_entropies = differences(own_entropies, entropies)["max |diff|"]
    row = differences(own_logprobs, logprobs) | {"max |diff of entropies|": of_entropies}
    return row | {"relative difference of gradients": relative}


def timed(sizes: Sizes, path: str, size: int, tflop: float) -> Row:
    """Return forward time, time and peak of forward and backward, and the rate without the recomputed product."""
    given = inputs(sizes, sizes.head_tokens, torch.bfloat16)
    way: Way = partial(scores, path, size, SETTINGS["plain"])
    with torch.no_grad():
        forward = measure(sizes, lambda: way(*given))
    row = measure(sizes, lambda: gradients(way, *given))
    return {"forward ms": forward["ms"], **row, **utilization(sizes, 3 * tflop, row["ms"])}
