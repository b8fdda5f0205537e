"""Continuous batching with a Hugging Face model: a waiting prompt takes the slot of each finished row."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.modeling_utils import PreTrainedModel

from fireopd.engines.base import RowRequest, ignore_response
from fireopd.engines.hf.sampling import sample
from fireopd.engines.hf.slot_cache import SlotCache
from fireopd.models.output_head import OutputHead, backbone
from fireopd.progress import report
from fireopd.types import Response, Sampling

__all__ = ["Decoder"]

PREFILL_TOKENS = 16384
"""Prompt tokens per prefill, padding included."""
REFILL_FRACTION = 8
"""Waiting prompts are prefilled together once one in this many slots is free."""


class Decoder:
    """Single-use decoder of a list of rows, each with its own length limit and temperature.

    Longer prompts come first, so that a new row is never longer than the running rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[RowRequest],
        *,
        sampling: Sampling,
        stops: frozenset[int],
        slots: int,
        vocabulary: int | None = None,
        announce: Callable[[int, Response], None] = ignore_response,
    ) -> None:
        """Allocate the outputs and queue the prompts.

        Args:
            model: model that caches nothing but keys and values.
            rows: rows to sample. A response depends only on the model and its row.
            sampling: sampling distribution; the temperatures are those of the rows.
            stops: tokens that end a response.
            slots: maximum number of rows that are decoded together.
            vocabulary: number of token ids to sample from, the first ones; None for all.
            announce: called with each row and its response when it is complete.
        """
        device = model.device
        self.backbone, self.head = backbone(model), OutputHead.of(model)
        self.cache_argument = _cache_argument(self.backbone)
        self.prompts = prompts = [row.prompt for row in rows]
        self.slots, self.vocabulary, self.announce = slots, vocabulary, announce
        temperatures, max_length = {row.temperature for row in rows}, max(row.max_length for row in rows)
        self.sampling = replace(sampling, temperature=rows[0].temperature)
        self.temperatures = None  # one for all rows: a number, which CUDA multiplies by its inverse
        if len(temperatures) > 1:
            self.temperatures = torch.tensor([row.temperature for row in rows], device=device)
        uniforms = [pad(_uniforms(row.seed, row.max_length), (0, max_length - row.max_length)) for row in rows]
        self.uniforms = torch.stack(uniforms).to(device)
        self.stops = torch.tensor(sorted(stops), device=device)
        self.limits = torch.tensor([row.max_length for row in rows], device=device)
        self.lengths = torch.tensor([len(prompt.tokens) for prompt in prompts], device=device)
        self.counts = torch.zeros_like(self.lengths)
        self.tokens = torch.zeros(len(prompts), max_length, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(len(prompts), max_length, device=device)
        self.finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        self.waiting = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row].tokens), prompts[row].tokens))
        self.running = self.lengths[:0]
        self.cache = SlotCache()
        self.padded = False

    @torch.inference_mode()
    def decode(self) -> list[Response]:
        """Return one response per prompt, in order."""
        report("rollout", 0, len(self.prompts))
        while self.waiting or len(self.running):
            free = self.slots - len(self.running)
            if self.waiting and free >= min(len(self.waiting), -(-self.slots // REFILL_FRACTION)):
                self._prefill(free)
            else:
                self._decode_step()
            report("rollout", len(self.prompts) - len(self.waiting) - len(self.running), len(self.prompts))
        return self._responses(slice(None))

    def _prefill(self, free: int) -> None:
        """Prefill waiting prompts, identical ones once; rows that do not stop at the first token get a slot."""
        count = min(free, max(1, PREFILL_TOKENS // len(self.prompts[self.waiting[0]].tokens)))
        rows, self.waiting = self.waiting[:count], self.waiting[count:]
        unique = list(dict.fromkeys(self.prompts[row].tokens for row in rows))
        indices = {prompt: index for index, prompt in enumerate(unique)}
        sources = self.lengths.new_tensor([indices[self.prompts[row].tokens] for row in rows])
        tokens, mask = (part.to(self.lengths.device) for part in _pad_left(unique))
        prefilled = DynamicCache()
        output = self.backbone(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            **{self.cache_argument: prefilled},
        )
        prefilled_rows = self.lengths.new_tensor(rows)
        active, _ = self._sample(prefilled_rows, self._logits(output)[sources])
        if active.any():
            slots = min(self.slots, len(self.running) + len(rows) + len(self.waiting))
            self.cache.append(prefilled, sources[active], slots)
            self._set_running(torch.cat([self.running, prefilled_rows[active]]))

    def _decode_step(self) -> None:
        """Sample one more token in each slot."""
        self.cache.reserve_column(min(self.slots, len(self.running) + len(self.waiting)))
        lengths = self._cached_lengths(self.running)
        width, mask = self.cache.get_seq_length() + 1, None
        if self.padded:
            mask = torch.arange(width, device=lengths.device) >= width - 1 - lengths[:, None]
        output = self.backbone(
            input_ids=self.tokens[self.running, self.counts[self.running] - 1][:, None],
            attention_mask=mask,
            position_ids=lengths[:, None],
            use_cache=True,
            **{self.cache_argument: self.cache},
        )
        self.cache.advance()
        active, ended = self._sample(self.running, self._logits(output))
        if ended:
            self._set_running(self.running[self.cache.compact(active)])

    def _logits(self, output: Any) -> Tensor:
        """Return the logits after the last token of each row, computed as the trainer does."""
        return self.head(output.last_hidden_state[:, -1:])[:, -1, : self.vocabulary].float()

    def _set_running(self, rows: Tensor) -> None:
        """Store the row of each slot."""
        self.running = rows
        if len(rows):
            lengths = self._cached_lengths(rows)
            shortest, longest = torch.stack(lengths.aminmax()).tolist()
            self.padded = longest > shortest
            self.cache.trim(longest)

    def _cached_lengths(self, rows: Tensor) -> Tensor:
        """Return the number of cached tokens of each row: all but the last sampled one."""
        return self.lengths[rows] + self.counts[rows] - 1

    def _sample(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, bool]:
        """Sample one token per row. Return which rows are still active, bool [rows], and whether one has ended.

        In a step without an end, the second result is the only value that is read from the device.
        """
        counts = self.counts[rows]
        temperatures = None if self.temperatures is None else self.temperatures[rows]
        token_ids, logprobs = sample(logits, self.sampling, self.uniforms[rows, counts], temperatures)
        self.tokens[rows, counts], self.logprobs[rows, counts] = token_ids, logprobs
        self.counts[rows] = counts + 1
        stopped = torch.isin(token_ids, self.stops)
        self.finished[rows] = stopped
        active = ~stopped & (counts + 1 < self.limits[rows])
        ended = not active.all().item()
        if ended and self.announce is not ignore_response:
            complete = rows[~active]
            for row, response in zip(complete.tolist(), self._responses(complete), strict=True):
                self.announce(row, response)
        return active, ended

    def _responses(self, rows: Tensor | slice) -> list[Response]:
        """Return the responses of complete rows."""
        values = (self.tokens[rows], self.logprobs[rows], self.counts[rows], self.finished[rows])
        parts = zip(*(value.tolist() for value in values), strict=True)
        return [Response(tuple(tokens[:n]), tuple(logprobs[:n]), finished) for tokens, logprobs, n, finished in parts]


def _cache_argument(model: nn.Module) -> str:
    """Return the argument that takes the key-value cache: `cache` from version 5.24 of transformers on."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _uniforms(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def _pad_left(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens, mask
