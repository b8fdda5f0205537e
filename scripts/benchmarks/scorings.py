"""Three ways to log-probabilities and entropies with a gradient: whole logits, ours in chunks, TRL's kernel."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.workloads import random_model
from fireopd.models.scorer import CausalScorer

LAYERS = 2
"""Of the model: few, so that the vocabulary is what costs."""
ROW = 1024
"""Tokens of a row, at most."""
ENTROPY_SHARE = 0.01
"""By what the entropies are multiplied in the loss."""

Way = Callable[[PreTrainedModel, Tensor], tuple[Tensor, Tensor]]
"""Takes int64 [B, L] tokens and returns log-probabilities and entropies of all but the first, [B, L - 1] each."""


def plain(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Hold the logits of all tokens; autograd does the rest."""
    distribution = model(tokens, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    logprobs = distribution.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return logprobs, -(distribution.exp() * distribution).sum(-1)


def chunked(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Ours: `CausalScorer` as it comes."""
    scores = CausalScorer(model)(tokens, torch.ones_like(tokens, dtype=torch.bool), entropy=True)
    assert scores.entropy is not None
    return scores.logprobs[:, 1:], scores.entropy[:, 1:]


def trl_kernel(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """TRL's chunked kernel for both, with the tile that its trainers use."""
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
"""By name."""


def learn(way: Way, model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Score tokens, add the gradient of a loss of log-probabilities and entropies to the model's, return the loss."""
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
        parameter.grad = torch.ones_like(parameter).zero_()  # written to, so that the memory is there
    length = min(ROW, tokens)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, vocabulary, (tokens // length, length), generator=generator)
    return model, drawn.to(device)
