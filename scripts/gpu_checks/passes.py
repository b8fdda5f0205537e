"""Passes that the questions time: forward and backward of an update, and forward of scoring."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from fireopd.models.kernels import Kernels
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer
from gpu_checks.measure import measure, model_tflop, utilization
from gpu_checks.random_models import Shape, random_rows
from gpu_checks.sizes import Row, Sizes


def autocast(sizes: Sizes, model: Any) -> AbstractContextManager[Any]:
    """Return bfloat16 autocast for float32 parameters, as `precision: bf16-mixed` has it."""
    if next(model.parameters()).dtype == torch.float32:
        return torch.autocast(sizes.device.type, dtype=torch.bfloat16, cache_enabled=False)  # as Lightning has it
    return nullcontext()


def backward(sizes: Sizes, scorer: CausalScorer, tokens: torch.Tensor, mask: torch.Tensor) -> None:
    """Run one forward and backward pass of log-probabilities and entropies."""
    with autocast(sizes, scorer.model):
        scores = scorer(tokens, mask, entropy=True)
    advantage = torch.linspace(-1, 1, scores.logprobs.numel(), device=tokens.device).view_as(scores.logprobs)
    (advantage * scores.logprobs).mean().backward()


def update(
    sizes: Sizes,
    shape: Shape,
    rows: int,
    length: int,
    kernels: Kernels = "torch",
    chunk_logits: int = CHUNK_LOGITS,
) -> Row:
    """Return time, peak and rate of a forward and backward pass."""
    tokens, mask = random_rows(sizes, shape.model.config.vocab_size, rows, length)
    scorer = CausalScorer(shape.model, chunk_logits, kernels)
    row = measure(sizes, partial(backward, sizes, scorer, tokens, mask), repeats=2)
    tflop = model_tflop(shape.model.config, shape.active, rows, length, backward=True)
    return row | utilization(sizes, tflop, row["ms"])


def scoring(sizes: Sizes, shape: Shape, rows: int, length: int) -> Row:
    """Return time, peak and rate of a forward pass without gradients."""
    tokens, mask = random_rows(sizes, shape.model.config.vocab_size, rows, length)

    @torch.no_grad()
    def work() -> None:
        CausalScorer(shape.model)(tokens, mask, entropy=True)

    row = measure(sizes, work, repeats=2)
    tflop = model_tflop(shape.model.config, shape.active, rows, length, backward=False)
    return row | utilization(sizes, tflop, row["ms"])
