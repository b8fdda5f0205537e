"""Question 6: decoding by HFEngine with a 0.6B model."""

from collections.abc import Iterator
from functools import partial

import torch

from fireopd.engines import HFEngine
from fireopd.types import Prompt
from gpu_checks.measure import attempt, measure, release
from gpu_checks.random_models import random_model
from gpu_checks.sizes import Row, Sizes

PROMPT_TOKENS = 32
"""Tokens of a prompt."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield time and peak of a rollout, by number of rows."""
    for cudnn in (False, True):
        name = "with" if cudnn else "without"
        for rows in (sizes.decoding_rows, 4 * sizes.decoding_rows):
            case = f"Qwen3-0.6B, bfloat16, {name} attention by cuDNN, {rows} rows of {sizes.decoding_tokens} tokens"
            yield attempt(case, partial(rollout, sizes, rows, cudnn=cudnn))
            release()


def rollout(sizes: Sizes, rows: int, *, cudnn: bool) -> Row:
    """Return milliseconds of a decoding step, tokens per second and peak; whether PyTorch may take cuDNN's kernel."""
    model = random_model("Qwen3-0.6B", sizes, torch.bfloat16).model.eval().requires_grad_(False)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)  # after loading, which excludes it
    engine = HFEngine(max_response_length=sizes.decoding_tokens, dtype="bfloat16", batch_size=rows)
    engine.model, engine.stops = model, frozenset()
    vocabulary = model.config.vocab_size
    prompts = [
        Prompt(tuple(3 + (row + place) % (vocabulary - 3) for place in range(PROMPT_TOKENS)), "", "", None, str(row))
        for row in range(rows)
    ]
    row = measure(sizes, lambda: engine.generate(prompts, range(rows)), repeats=1)
    milliseconds = row.pop("ms")
    rate = rows * sizes.decoding_tokens / (milliseconds / 1e3)
    return {"ms per step": milliseconds / sizes.decoding_tokens, "tokens/s": rate, **row}
