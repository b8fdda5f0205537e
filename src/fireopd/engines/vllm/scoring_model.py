"""Model class of `fireopd serve --teacher`: two numbers for each token instead of a hidden state.

vLLM runs the teacher as a pooling model, whose pooler gets the hidden states of all prompt tokens. The pooler below
computes the logits and returns the log-probability of the next token and the exact entropy, float32 each, so that a
server sends 8 bytes a token. vLLM loads `register` as a plug-in in each of its processes (entry-point group
`vllm.general_plugins`). It changes nothing unless the process belongs to a teacher.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fireopd.engines.vllm.teacher_card import TeacherCard
from fireopd.models.scorer import CHUNK_LOGITS

__all__ = ["TASK", "register", "score_prompts", "token_scores"]

TASK = "token_classify"
"""Pooling task of vLLM under which the scores are returned."""
ORIGINALS: dict[str, Any] = {}
"""Registered model by architecture, before `register`."""


def token_scores(logits: Tensor, targets: Tensor, temperatures: Tensor) -> Tensor:
    """Return log-probability and entropy of each row in nats, float32 [N, 2].

    Args:
        logits: float [N, V].
        targets: int64 [N]. Token ids whose log-probabilities are returned.
        temperatures: float32 [N]. Divisors of the logits.
    """
    logprobs = (logits.float() / temperatures[:, None]).log_softmax(-1)
    entropies = torch.special.entr(logprobs.exp()).sum(-1)
    return torch.stack([logprobs.gather(-1, targets[:, None])[:, 0], entropies], dim=-1)


def score_prompts(
    hidden_states: Tensor, metadata: Any, logits_of: Callable[[Tensor], Tensor | None], vocabulary: int
) -> list[Tensor | None]:
    """Return the scores of each request whose prompt is complete, float32 [tokens, 2]; None for the others.

    The scores belong to the tokens from `first` on, without those whose predictions came from the prefix cache.

    Args:
        hidden_states: float [N, d]. Last hidden states of the scheduled tokens of all requests.
        metadata: vLLM's `PoolingMetadata`. The `extra_kwargs` of a request hold `first`, the index of the first token
            to score, and `temperature`; without them, all tokens after the first are scored.
        logits_of: maps hidden states to logits, or to None in processes without the whole vocabulary.
        vocabulary: number of token ids.
    """
    cursor = metadata.get_pooling_cursor()
    prompts, lengths = metadata.get_prompt_token_ids_cpu(), metadata.prompt_lens.tolist()
    states, targets, temperatures = [], [], []
    offset = 0
    counts, ends = cursor.num_scheduled_tokens_cpu.tolist(), cursor.seq_lens_cpu.tolist()
    for row, (count, end) in enumerate(zip(counts, ends, strict=True)):
        request = metadata.pooling_params[row].extra_kwargs or {}
        start = end - count
        low = max(start, request.get("first", 1) - 1)  # first position whose prediction is scored
        wanted = prompts[row][low + 1 : min(end + 1, lengths[row])].long()
        begin = offset + low - start
        states.append(hidden_states[begin : begin + len(wanted)])
        targets.append(wanted)
        temperatures.append(torch.full(wanted.shape, request.get("temperature", 1.0)))
        offset += count
    device = hidden_states.device
    inputs = (torch.cat(states), torch.cat(targets).to(device), torch.cat(temperatures).to(device))
    scores = _in_chunks(*inputs, logits_of, max(1, CHUNK_LOGITS // vocabulary))
    return _collect(scores.split([len(part) for part in targets]), metadata.pooling_states, cursor.get_finished_mask())


def _in_chunks(
    states: Tensor, targets: Tensor, temperatures: Tensor, logits_of: Callable[[Tensor], Tensor | None], size: int
) -> Tensor:
    scores = torch.zeros(len(targets), 2, device=states.device)
    for begin, end in pairwise([*range(0, len(targets), size), len(targets)]):
        logits = logits_of(states[begin:end])
        if logits is not None:
            scores[begin:end] = token_scores(logits, targets[begin:end], temperatures[begin:end])
    return scores


def _collect(parts: tuple[Tensor, ...], requests: list[Any], finished: list[bool]) -> list[Tensor | None]:
    """Return the scores of finished requests; keep those of others with the request until its last chunk."""
    found: list[Tensor | None] = []
    for part, request, complete in zip(parts, requests, finished, strict=True):
        request.hidden_states_cache.append(part)
        found.append(torch.cat(request.hidden_states_cache) if complete else None)
        if complete:
            request.clean()
    return found


def register() -> None:
    """Replace the class of the teacher's architecture in vLLM's registry; do nothing in other processes of vLLM."""
    card = TeacherCard.of_environment()
    if card is None or card.architecture in ORIGINALS:
        return
    from vllm import ModelRegistry

    ORIGINALS[card.architecture] = ModelRegistry.models[card.architecture]
    ModelRegistry.register_model(card.architecture, f"{__name__}:{card.architecture}")


def __getattr__(name: str) -> Any:
    """Return the scoring class of an architecture; vLLM imports it from this module by name.

    vLLM inspects the class in a separate process, where the plug-ins may not be loaded yet.
    """
    if not name.startswith("__"):
        register()
    if name not in ORIGINALS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _scoring_class(ORIGINALS[name].load_model_cls())
    return globals()[name]


def _scoring_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a causal language model of vLLM with a pooler that scores."""
    from vllm.model_executor.layers.pooler import PoolingParamsUpdate
    from vllm.model_executor.layers.pooler.abstract import Pooler
    from vllm.model_executor.models.interfaces_base import VllmModelForPooling

    class ScoringPooler(Pooler):
        """Pooler that returns log-probability and entropy of each scored token, float32 [tokens, 2]."""

        def __init__(self, logits_of: Callable[[Tensor], Tensor | None], vocabulary: int) -> None:
            super().__init__()
            self.logits_of, self.vocabulary = logits_of, vocabulary

        def get_supported_tasks(self) -> set[str]:
            return {TASK}

        def get_pooling_updates(self, task: str) -> Any:
            return PoolingParamsUpdate(requires_token_ids=True)

        def forward(self, hidden_states: Tensor, pooling_metadata: Any) -> list[Tensor | None]:
            return score_prompts(hidden_states, pooling_metadata, self.logits_of, self.vocabulary)

    class ScoringModel(base, VllmModelForPooling):  # type: ignore[valid-type, misc] # a base that vLLM selects
        """Causal language model that vLLM runs as a pooling model."""

        is_pooling_model = True

        def __init__(self, *, vllm_config: Any, prefix: str = "", **settings: Any) -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix, **settings)
            self.pooler = ScoringPooler(self.compute_logits, vllm_config.model_config.get_vocab_size())

    ScoringModel.__name__ = ScoringModel.__qualname__ = base.__name__
    return ScoringModel
