"""Implementations of differentiable log-probabilities and entropies: plain, chunked (fireopd), and TRL's kernel."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.workloads import random_model
from fireopd.models.scorer import CausalScorer

LAYERS = 2
"""Layers of the model: few, so that the vocabulary dominates the cost."""
ROW = 1024
"""Maximum number of tokens per row."""
ENTROPY_SHARE = 0.01
"""Weight of the entropies in the loss."""

Way = Callable[[PreTrainedModel, Tensor], tuple[Tensor, Tensor]]
"""Function from tokens, int64 [B, L], to log-probabilities and entropies of all but the first, [B, L - 1] each."""


def plain(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies from the logits of all tokens, with autograd."""
    distribution = model(tokens, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    logprobs = distribution.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logprobs, -(distribution.exp() * distribution).sum(-1)


def chunked(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of `CausalScorer` with default settings."""
    scores = CausalScorer(model)(tokens, torch.ones_like(tokens, dtype=torch.bool), entropy=True)
    assert scores.entropy is not None
    return scores.logprobs[:, 1:], scores.entropy[:, 1:]


def trl_kernel(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of TRL's chunked kernel with the chunk size of its trainers."""
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    hidden = model.base_model(tokens, use_cache=False).last_hidden_state[:, :-1]
    head, shape = model.get_output_embeddings(), tokens[:, 1:].shape
    flat, targets = hidden.reshape(-1, hidden.shape[-1]), tokens[:, 1:].reshape(-1)
    found = ChunkedLogProbFunction.apply(
        flat, head.weight, head.bias, targets, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ("entropy",)
    )
    return found[0].view(shape), found[1].view(shape)


WAYS: dict[str, Way] = {"plain": plain, "chunked": chunked, "trl_kernel": trl_kernel}
"""Implementations by name."""


def accumulate_gradient(way: Way, model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Accumulate the gradient of a loss of log-probabilities and entropies, and return the loss."""
    logprobs, entropy = way(model, tokens)
    advantage = torch.linspace(-1, 1, logprobs.numel(), device=tokens.device).view_as(logprobs)
    loss = -(advantage * logprobs).mean() - ENTROPY_SHARE * entropy.mean()
    loss.backward()
    return loss.detach()


def workload(tokens: int, *, width: int, vocabulary: int, device: torch.device) -> tuple[PreTrainedModel, Tensor]:
    """Return a random model with tied embeddings and gradients in place, and int64 [B, L] tokens."""
    with TemporaryDirectory() as folder:
        path = random_model(Path(folder), width=width, vocabulary=vocabulary, layers=LAYERS)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter).zero_()  # written to, so that the memory is allocated
    length = min(ROW, tokens)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, vocabulary, (tokens // length, length), generator=generator)
    return model, drawn.to(device)
