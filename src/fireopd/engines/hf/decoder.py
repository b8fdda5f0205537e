"""Decoding with a Hugging Face model: as many rows together as there are slots, a waiting prompt for each that ends."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_utils import PreTrainedModel

from fireopd.engines.hf.sampling import sample
from fireopd.engines.hf.slot_cache import SlotCache
from fireopd.progress import report
from fireopd.types import Prompt, Response, Sampling

PREFILL_TOKENS = 16384
"""Tokens of prompts that are read together, padding included."""
FEWEST = 8
"""Prompts wait until one of so many slots is free, so that they are read together."""


class Decoder:
    """Decodes some prompts, once.

    Longer prompts come first: one that takes the place of another is then never longer than the rows that go on.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        *,
        sampling: Sampling,
        stops: frozenset[int],
        max_length: int,
        slots: int,
    ) -> None:
        """Take the prompts.

        Args:
            model: keeps keys and values and nothing else of earlier tokens.
            prompts: one for each row.
            seeds: with its prompt and the model, what a row gets depends on its seed alone.
            sampling: the distribution that tokens are drawn from.
            stops: tokens that end a response.
            max_length: tokens of a response, at most.
            slots: rows that are decoded together, at most.
        """
        device = model.device
        self.model, self.prompts, self.sampling, self.slots = model, prompts, sampling, slots
        self.uniforms = torch.stack([_uniforms(seed, max_length) for seed in seeds]).to(device)
        self.stops = torch.tensor(sorted(stops), device=device)
        self.max_length = max_length
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
        """Return one response for each prompt, in order."""
        report("rollout", 0, len(self.prompts))
        while self.waiting or len(self.running):
            free = self.slots - len(self.running)
            if self.waiting and free >= min(len(self.waiting), -(-self.slots // FEWEST)):
                self._begin(free)
            else:
                self._go_on()
            report("rollout", len(self.prompts) - len(self.waiting) - len(self.running), len(self.prompts))
        told = zip(
            self.tokens.tolist(), self.logprobs.tolist(), self.counts.tolist(), self.finished.tolist(), strict=True
        )
        return [Response(tuple(tokens[:n]), tuple(logprobs[:n]), finished) for tokens, logprobs, n, finished in told]

    def _begin(self, free: int) -> None:
        """Read prompts that wait, equal ones once, and give those that do not end at once a slot."""
        together = max(1, PREFILL_TOKENS // len(self.prompts[self.waiting[0]].tokens))
        rows, self.waiting = self.waiting[: min(free, together)], self.waiting[min(free, together) :]
        texts = list(dict.fromkeys(self.prompts[row].tokens for row in rows))
        numbers = {text: number for number, text in enumerate(texts)}
        sources = self.lengths.new_tensor([numbers[self.prompts[row].tokens] for row in rows])
        tokens, mask = (part.to(self.lengths.device) for part in _pad_left(texts))
        prefilled = DynamicCache()
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=prefilled,
            use_cache=True,
            logits_to_keep=1,
        )
        begun = self.lengths.new_tensor(rows)
        going_on = self._write(begun, output.logits[:, -1].float()[sources])
        if going_on.any():
            slots = min(self.slots, len(self.running) + len(rows) + len(self.waiting))
            self.cache.add(prefilled, sources[going_on], slots)
            self._run(torch.cat([self.running, begun[going_on]]))

    def _go_on(self) -> None:
        """Write one token more in each slot."""
        self.cache.make_room(min(self.slots, len(self.running) + len(self.waiting)))
        read = self._read(self.running)
        width, mask = self.cache.get_seq_length() + 1, None
        if self.padded:
            mask = torch.arange(width, device=read.device) >= width - 1 - read[:, None]
        output = self.model(
            input_ids=self.tokens[self.running, self.counts[self.running] - 1][:, None],
            attention_mask=mask,
            position_ids=read[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache.wrote()
        going_on = self._write(self.running, output.logits[:, -1].float())
        if not going_on.all():
            self._run(self.running[self.cache.keep(going_on)])

    def _run(self, rows: Tensor) -> None:
        """Take note of which row is in each slot."""
        self.running = rows
        if len(rows):
            read = self._read(rows)
            longest = int(read.max())
            self.padded = longest > int(read.min())
            self.cache.trim(longest)

    def _read(self, rows: Tensor) -> Tensor:
        """Return how many tokens of each row the model has read: all but the last one that was written."""
        return self.lengths[rows] + self.counts[rows] - 1

    def _write(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Draw a token for each row; return which rows go on, bool [rows]."""
        counts = self.counts[rows]
        chosen, logprobs = sample(logits, self.sampling, self.uniforms[rows, counts])
        self.tokens[rows, counts], self.logprobs[rows, counts] = chosen, logprobs
        self.counts[rows] = counts + 1
        stopped = torch.isin(chosen, self.stops)
        self.finished[rows] = stopped
        return ~stopped & (counts + 1 < self.max_length)


def _uniforms(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def _pad_left(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens, mask
