"""Question 9: the same rows in different micro-batches in bfloat16."""

from collections.abc import Iterator
from functools import partial

import torch
from transformers.modeling_utils import PreTrainedModel

from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.models.token_budget import by_token_budget
from gpu_checks.measure import attempt, differences, release
from gpu_checks.random_models import random_model
from gpu_checks.sizes import Row, Sizes

CLIP_RATIO = 0.2
"""Clip of the surrogate."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the differences of log-probabilities between micro-batches, by model and dtype."""
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield attempt(f"Qwen3-0.6B, random, {name}", partial(of_random_model, sizes, dtype))
        release()
        yield attempt(f"tiny/math, {name}", partial(of_embedded_model, sizes, dtype))


def of_random_model(sizes: Sizes, dtype: torch.dtype) -> Row:
    """Return the differences of a random model."""
    return between_cuts(sizes, random_model("Qwen3-0.6B", sizes, dtype).model.eval())


def of_embedded_model(sizes: Sizes, dtype: torch.dtype) -> Row:
    """Return the differences of a trained model."""
    model = load_causal_lm("tiny/math", "model", "float32", sizes.device).to(dtype)
    return between_cuts(sizes, model.eval())


@torch.no_grad()
def between_cuts(sizes: Sizes, model: PreTrainedModel) -> Row:
    """Return the differences between rows alone and in micro-batches, and the share of ratios that would be clipped."""
    generator = torch.Generator().manual_seed(0)
    longest = min(sizes.rounding_tokens, model.config.max_position_embeddings)
    lengths = torch.randint(max(2, longest // 8), longest + 1, (sizes.rounding_rows,), generator=generator)
    tokens = torch.randint(3, model.config.vocab_size, (sizes.rounding_rows, longest), generator=generator)
    mask = torch.arange(longest) < lengths[:, None]
    scorer = CausalScorer(model)
    alone, together = (torch.zeros(tokens.shape, device=sizes.device) for _ in range(2))
    for target, budget in ((alone, 1), (together, 8 * longest)):
        for rows in by_token_budget(lengths, budget):
            width = int(lengths[rows].max())
            part = (values[rows, :width].to(sizes.device) for values in (tokens, mask))
            target[rows.to(sizes.device), :width] = scorer(*part).logprobs.float()
    scored = mask.to(sizes.device)
    scored[:, 0] = False
    ratios = (together[scored] - alone[scored]).exp()
    clipped = ((ratios - 1).abs() > CLIP_RATIO).float().mean().item()
    return differences(together[scored], alone[scored]) | {"clip fraction": clipped}
