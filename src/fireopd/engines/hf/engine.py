"""Rollout engine that runs a Hugging Face model in this process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from fireopd import private_apis
from fireopd.engines.base import MemoryPart, RolloutEngine, RowRequest
from fireopd.engines.hf.decoder import Decoder
from fireopd.engines.hf.slot_cache import has_non_kv_state, spare_columns
from fireopd.errors import UserError
from fireopd.models.architecture import is_recurrent
from fireopd.models.loading import Dtype, load_causal_lm, load_config, load_tokenizer, stop_tokens
from fireopd.models.scorer import CausalScorer
from fireopd.types import Prompt, Response

__all__ = ["HFEngine"]


@dataclass
class HFEngine(RolloutEngine):
    """Sampler on a Hugging Face model: continuous batching with a key-value cache, on any device."""

    batch_size: int = 256
    """Maximum number of rows that are decoded together."""
    dtype: Dtype = "float32"
    """Dtype of the parameters of the engine's copy."""
    model: PreTrainedModel | None = field(default=None, init=False, compare=False, repr=False)
    """The engine's copy of the model, after `setup`."""
    stops: frozenset[int] = field(default=frozenset(), init=False, compare=False, repr=False)
    """Token ids that end a response."""
    vocabulary: int | None = field(default=None, init=False, compare=False, repr=False)
    """Number of token ids to sample from, the first ones; None for all of the model."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, key: str, student: str) -> None:
        """Raise `UserError` if the model caches more than keys and values, such as a recurrent state."""
        super().check(key, student)
        config = load_config(student, "model.student")
        if has_non_kv_state(config) or is_recurrent(config):
            raise self._cannot_decode(key, student)

    def memory(
        self, parameters: int, cache_per_token: int, rows: int, tokens: int, gpu: int | None = None
    ) -> dict[str, MemoryPart]:
        """Return the bytes of the engine's copy of the student and of its key-value cache."""
        itemsize, rows = torch.empty(0, dtype=getattr(torch, self.dtype)).element_size(), min(rows, self.batch_size)
        columns = tokens + spare_columns(tokens)
        cache = rows * columns * cache_per_token * itemsize
        return {
            "weights": MemoryPart(parameters * itemsize, f"{parameters / 1e6:.1f} M parameters x {itemsize} B"),
            "KV cache": MemoryPart(cache, f"{rows} rows x {columns} tokens x {cache_per_token} x {itemsize} B"),
        }

    def setup(self, model: str, device: torch.device) -> None:
        """Load the model and its stop tokens."""
        self.check("engine", model)
        self.model = load_causal_lm(model, "engine", self.dtype, device).eval().requires_grad_(False)
        if private_apis.is_stateful(self.model):
            raise self._cannot_decode("engine", model)
        self.stops = stop_tokens(model, "engine", load_tokenizer(model, "engine"))

    @torch.no_grad()
    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Copy tensors into the model."""
        assert self.model is not None, "call setup() first"
        state = self.model.state_dict(keep_vars=True)
        for name, tensor in weights:
            state[name].copy_(tensor)
        self.policy_version = policy_version

    @torch.no_grad()
    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return the log-probabilities of the engine's copy."""
        assert self.model is not None, "call setup() first"
        sequence = torch.tensor([list(tokens)], device=self.model.device)
        scores = CausalScorer(self.model)(sequence, torch.ones_like(sequence, dtype=torch.bool))
        return {"HFEngine": scores.logprobs[0, 1:].tolist()}

    def close(self) -> None:
        """Release the model."""
        super().close()
        self.model = None

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Sample one response per prompt."""
        return self.generate_mixed(self.requests(prompts, seeds))

    def generate_mixed(self, rows: Sequence[RowRequest]) -> list[Response]:
        """Sample one response per row, all of them together."""
        assert self.model is not None, "call setup() first"
        if not rows:
            return []
        settings: dict[str, Any] = {"slots": self.batch_size, "vocabulary": self.vocabulary, "announce": self.announce}
        return Decoder(self.model, rows, sampling=self.sampling, stops=self.stops, **settings).decode()

    def share(self, model: PreTrainedModel, stops: frozenset[int], vocabulary: int) -> None:
        """Sample from a loaded model in the place of `setup`, without a copy of its weights.

        Args:
            model: the model.
            stops: token ids that end a response.
            vocabulary: number of token ids to sample from, the first ones.
        """
        self.model, self.stops, self.vocabulary = model, stops, vocabulary

    def _cannot_decode(self, key: str, model: str) -> UserError:
        problem = f"{model} caches more than keys and values"
        return UserError(key, "HFEngine", problem, "use VLLMEngine or VLLMServerEngine")
