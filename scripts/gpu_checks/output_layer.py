"""Question 2: log-probabilities and entropies at a large vocabulary, forward and backward."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fireopd.models import chunked_logprobs
from gpu_checks.measure import attempt, differences, measure, relative_difference, release, utilization
from gpu_checks.sizes import Row, Sizes

Scores = tuple[Tensor, Tensor]
"""Log-probabilities and entropies, float [T]."""
Way = Callable[[Tensor, Tensor, Tensor], Scores]
"""Function of hidden states [T, d], weight [V, d] and targets [T]."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield time and peak of each way, then the errors of bfloat16 against float64."""
    ways: dict[str, Way] = {f"chunks of {size} logits": partial(chunked, size) for size in sizes.chunk_logits}
    ways["whole logits"] = whole
    tflop = 2 * sizes.head_tokens * sizes.head_width * sizes.vocabulary / 1e12
    for name, way in ways.items():
        yield attempt(f"{name}, bfloat16", partial(timed, sizes, way, tflop))
        release()
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield attempt(f"error of {name} against float64", partial(error, sizes, dtype))
        release()


def chunked(size: int, hidden: Tensor, weight: Tensor, targets: Tensor) -> Scores:
    """Return the scores of fireopd."""
    settings = {"temperature": 1.0, "entropy": True, "chunk_logits": size}
    logprobs, entropies = chunked_logprobs.token_logprobs(hidden, weight, None, targets, **settings)
    assert entropies is not None
    return logprobs, entropies


def whole(hidden: Tensor, weight: Tensor, targets: Tensor) -> Scores:
    """Return the scores of whole logits, with autograd."""
    distribution = (hidden @ weight.t()).to(torch.promote_types(hidden.dtype, torch.float32)).log_softmax(-1)
    return distribution.gather(-1, targets[:, None]).squeeze(-1), -(distribution.exp() * distribution).sum(-1)


def inputs(sizes: Sizes, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return random hidden states of unit scale, weights that give logits of scale 2, and targets."""
    place: Any = {"generator": torch.Generator(sizes.device).manual_seed(0), "device": sizes.device}
    hidden = torch.randn(tokens, sizes.head_width, **place)
    weight = torch.randn(sizes.vocabulary, sizes.head_width, **place) * (2 / sizes.head_width**0.5)
    targets = torch.randint(0, sizes.vocabulary, (tokens,), **place)
    # bfloat16 values in every dtype, so that only the arithmetic differs.
    hidden, weight = (values.to(torch.bfloat16).to(dtype).requires_grad_() for values in (hidden, weight))
    return hidden, weight, targets


def timed(sizes: Sizes, way: Way, tflop: float) -> Row:
    """Return forward time, time and peak of forward and backward, and the rate of both."""
    hidden, weight, targets = inputs(sizes, sizes.head_tokens, torch.bfloat16)
    with torch.no_grad():
        forward = measure(sizes, lambda: way(hidden, weight, targets))
    row = measure(sizes, lambda: gradients(way, hidden, weight, targets))
    return {"forward ms": forward["ms"], **row, **utilization(sizes, 3 * tflop, row["ms"])}


def gradients(way: Way, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of a loss of log-probabilities and entropies."""
    logprobs, entropies = way(hidden, weight, targets)
    advantage = torch.linspace(-1, 1, len(logprobs), device=logprobs.device, dtype=logprobs.dtype)
    return torch.autograd.grad((advantage * logprobs).mean() + 0.01 * entropies.mean(), (hidden, weight))


def error(sizes: Sizes, dtype: torch.dtype) -> Row:
    """Return the differences of log-probabilities, and the relative difference of gradients, from float64."""
    way: Way = partial(chunked, sizes.chunk_logits[0])
    found, expected = (inputs(sizes, sizes.reference_tokens, kind) for kind in (dtype, torch.float64))
    with torch.no_grad():
        gaps = differences(way(*found)[0], way(*expected)[0])
    own, reference = gradients(way, *found), gradients(way, *expected)
    return gaps | {"relative gradient error": relative_difference(iter(own), iter(reference))}
