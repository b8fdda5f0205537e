"""Question 3: forward and backward pass of a 4B and a 1.7B model, and scoring."""

from collections.abc import Iterator
from functools import partial

import torch

from fireopd.models.scorer import CausalScorer
from gpu_checks.measure import attempt, held, measure, model_tflop, release, utilization
from gpu_checks.passes import backward, scoring, update
from gpu_checks.random_models import Shape, random_model, random_rows
from gpu_checks.sizes import Row, Sizes

PRECISIONS = {"bfloat16 parameters": torch.bfloat16, "float32 under autocast": torch.float32}
"""Dtype of the parameters; the first is the computation of `sharding.param_dtype: bfloat16`."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the passes of the 4B model, then whole steps of the 1.7B model."""
    for precision, dtype in PRECISIONS.items():
        shape = random_model("Qwen3-4B", sizes, dtype)
        shape.model.gradient_checkpointing_enable()
        yield {"case": f"Qwen3-4B, {precision}: loaded", **held(sizes)}
        for rows, length in sizes.update_shapes:
            case = f"Qwen3-4B, {precision}: forward and backward, {rows} x {length}"
            yield attempt(case, partial(update, sizes, shape, rows, length))
            shape.model.zero_grad()
            release()
        if dtype == torch.bfloat16:
            for rows, length in sizes.scoring_shapes:
                case = f"Qwen3-4B, {precision}: scoring, {rows} x {length}"
                yield attempt(case, partial(scoring, sizes, shape, rows, length))
                release()
        del shape
        release()
    yield from whole_steps(sizes)


def whole_steps(sizes: Sizes) -> Iterator[Row]:
    """Yield forward, backward and optimizer step of the 1.7B model with float32 parameters."""
    rows, length = sizes.update_shapes[-1]
    for checkpointing in (True, False):
        for fused in (True, False):
            shape = random_model("Qwen3-1.7B", sizes, torch.float32)
            if checkpointing:
                shape.model.gradient_checkpointing_enable()
            name = f"{'with' if checkpointing else 'without'} checkpointing, {'fused' if fused else 'plain'} AdamW"
            case = f"Qwen3-1.7B, float32 under autocast, {name}: step, {rows} x {length}"
            yield attempt(case, partial(step, sizes, shape, rows, length, fused=fused))
            del shape
            release()
            if not checkpointing:
                break


def step(sizes: Sizes, shape: Shape, rows: int, length: int, *, fused: bool) -> Row:
    """Return time, peak and rate of a step, and the milliseconds of the optimizer alone."""
    tokens, mask = random_rows(sizes, shape.model.config.vocab_size, rows, length)
    scorer = CausalScorer(shape.model)
    optimizer = torch.optim.AdamW(shape.model.parameters(), lr=1e-6, fused=fused)

    def work() -> None:
        backward(sizes, scorer, tokens, mask)
        optimizer.step()
        optimizer.zero_grad()

    row = measure(sizes, work, repeats=2)
    backward(sizes, scorer, tokens, mask)
    optimizer_row = measure(sizes, lambda: optimizer.step())
    tflop = model_tflop(shape.model.config, shape.active, rows, length, backward=True)
    return row | utilization(sizes, tflop, row["ms"]) | {"optimizer ms": optimizer_row["ms"]}
