"""Sampling with the Hugging Face model itself: batched, with a key-value cache, on any device."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_utils import PreTrainedModel

from fireopd.engines.base import RolloutEngine
from fireopd.models import Dtype, load_causal_lm, load_tokenizer, stop_tokens
from fireopd.progress import counted
from fireopd.scoring import CausalScorer
from fireopd.types import Prompt, Response, Sampling


@dataclass
class HFEngine(RolloutEngine):
    """Samples with the Hugging Face model itself: batched, with a key-value cache, on any device."""

    batch_size: int = 256
    """Rows that are decoded together."""
    dtype: Dtype = "float32"
    """Type of the parameters of the engine's copy."""
    model: PreTrainedModel | None = field(default=None, init=False, compare=False, repr=False)
    """The engine's copy, once it is loaded."""
    stops: frozenset[int] = field(default=frozenset(), init=False, compare=False, repr=False)
    """Token ids that end a response."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def memory(self, parameters: int, cache_per_token: int, rows: int, tokens: int) -> dict[str, tuple[int, str]]:
        """Return the bytes of the engine's own copy of the student and of its cache."""
        width, rows = torch.empty(0, dtype=getattr(torch, self.dtype)).element_size(), min(rows, self.batch_size)
        cache = rows * tokens * cache_per_token * width
        return {
            "weights": (parameters * width, f"{parameters / 1e6:.1f} M parameters x {width} B"),
            "KV cache": (cache, f"{rows} rows x {tokens} tokens x {cache_per_token} x {width} B"),
        }

    def setup(self, model: str, device: torch.device) -> None:
        """Load the model and its stop tokens."""
        self.model = load_causal_lm(model, "engine", self.dtype, device).eval().requires_grad_(False)
        self.stops = stop_tokens(model, "engine", load_tokenizer(model, "engine"))

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Copy tensors into the model."""
        assert self.model is not None, "setup() comes first"
        own = self.model.state_dict(keep_vars=True)
        for name, tensor in weights:
            own[name].copy_(tensor)
        self.policy_version = policy_version

    @torch.no_grad()
    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return what the engine's copy says."""
        assert self.model is not None, "setup() comes first"
        sequence = torch.tensor([list(tokens)], device=self.model.device)
        scores = CausalScorer(self.model)(sequence, torch.ones_like(sequence, dtype=torch.bool))
        return {"HFEngine": scores.logprobs[0, 1:].tolist()}

    def close(self) -> None:
        """Let go of the model."""
        super().close()
        self.model = None

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Sample one response for each prompt; prompts of like length are decoded together."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
        responses: dict[int, Response] = {}
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            decoded = self._decode([prompts[i] for i in rows], [seeds[i] for i in rows])
            responses.update(zip(rows, decoded, strict=True))
        return [responses[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _decode(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        assert self.model is not None, "setup() comes first"
        device = self.model.device
        uniforms = torch.stack([_uniforms(seed, self.max_response_length) for seed in seeds]).to(device)
        tokens, mask = (part.to(device) for part in _pad_left([p.tokens for p in prompts]))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        written: list[list[tuple[int, float]]] = [[] for _ in prompts]
        running = torch.arange(len(prompts), device=device)
        stops = torch.tensor(sorted(self.stops), device=device)
        for step in counted(range(self.max_response_length), "rollout"):
            output = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen, logprobs = sample(output.logits[:, -1].float(), self.sampling, uniforms[running, step])
            for row, token, logprob in zip(running.tolist(), chosen.tolist(), logprobs.tolist(), strict=True):
                written[row].append((token, logprob))
            going_on = ~torch.isin(chosen, stops)
            if not going_on.any():
                break
            if not going_on.all():
                cache.batch_select_indices(going_on.nonzero().squeeze(-1))
            running, mask, positions = running[going_on], mask[going_on], positions[going_on]
            tokens = chosen[going_on, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            positions = positions[:, -1:] + 1
        return [_response(pairs, self.stops) for pairs in written]


def sample(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by inverting the cumulative distribution; at temperature 0, take the likeliest token.

    Args:
        logits: float32 [B, V].
        sampling: what is made of them.
        uniforms: float [B]. In [0, 1), one for each row.

    Returns:
        int64 [B] token ids, and float32 [B] their log-probabilities in nats under the distribution that was drawn from.
    """
    if sampling.greedy:
        return logits.argmax(-1), logits.new_zeros(len(logits))
    log_distribution = truncate(logits / sampling.temperature, sampling).log_softmax(-1)
    cumulative = log_distribution.double().exp().cumsum(-1)
    drawn = (uniforms.double() * cumulative[:, -1])[:, None]
    chosen = torch.searchsorted(cumulative, drawn, right=True).clamp(max=logits.shape[-1] - 1)
    return chosen.squeeze(-1), log_distribution.gather(-1, chosen).squeeze(-1)


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return float [B, V] logits with -inf for the tokens that top-k, and then top-p of what it leaves, cut off."""
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        cut = before >= sampling.top_p
        logits = logits.masked_fill(cut.scatter(-1, order, cut), -torch.inf)
    return logits


def _uniforms(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def _pad_left(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens, mask


def _response(pairs: Sequence[tuple[int, float]], stops: frozenset[int]) -> Response:
    tokens, logprobs = zip(*pairs, strict=True)
    return Response(tokens=tokens, logprobs=logprobs, finished=tokens[-1] in stops)
