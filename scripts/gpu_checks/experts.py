"""Question 7: a mixture of experts, four layers of a 30B-A3B model."""

from collections.abc import Iterator
from functools import partial

import torch

from gpu_checks.measure import attempt, held, release
from gpu_checks.passes import scoring, update
from gpu_checks.random_models import Shape, random_model
from gpu_checks.sizes import Row, Sizes

LAYERS = 4
"""Layers of the model; 48 in the published one."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield scoring by each implementation of the experts, and one forward and backward pass."""
    layers = 2 if sizes.tiny_models else LAYERS
    shape = random_model("Qwen3-30B-A3B", sizes, torch.bfloat16, layers)
    name = f"{layers} layers of Qwen3-30B-A3B, bfloat16"
    yield {"case": f"{name}: loaded", "experts": implementation(shape), **held(sizes)}
    for rows, length in sizes.scoring_shapes:
        yield attempt(f"{name}: scoring, {rows} x {length}", partial(scoring, sizes, shape, rows, length))
        release()
    for other in ("grouped_mm", "batched_mm", "eager"):
        case = f"{name}: scoring by {other}, {rows} x {length}"
        yield attempt(case, partial(scoring_by, sizes, shape, rows, length, experts=other))
        release()
    rows, length = sizes.update_shapes[-1]
    case = f"{name}: forward and backward, {rows} x {length}"
    yield attempt(case, partial(update_by_grouped_products, sizes, shape, rows, length))


def implementation(shape: Shape) -> str:
    """Return the name of the implementation of the experts, or `?` if this version does not tell."""
    return str(getattr(shape.model.config, "_experts_implementation", "?"))


def scoring_by(sizes: Sizes, shape: Shape, rows: int, length: int, experts: str) -> Row:
    """Return time, peak and rate of a forward pass without gradients, by an implementation of the experts."""
    shape.model.set_experts_implementation(experts)
    return scoring(sizes, shape, rows, length)


def update_by_grouped_products(sizes: Sizes, shape: Shape, rows: int, length: int) -> Row:
    """Return time, peak and rate of a forward and backward pass."""
    if hasattr(shape.model, "set_experts_implementation"):
        shape.model.set_experts_implementation("grouped_mm")
    return update(sizes, shape, rows, length)
