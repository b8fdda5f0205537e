"""Rollout engine under test, with a copy of the student, example responses and probes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fireopd.engines import RolloutEngine
from fireopd.engines.contract import checked_probe, checked_responses
from fireopd.models.weight_stream import WeightStream
from fireopd.types import Prompt, Response

__all__ = ["RESPONSES", "EngineCase"]

RESPONSES = 8
"""Responses to each example prompt."""


@dataclass(eq=False)
class EngineCase:
    """An engine under test with a copy of the student, whose weights it must have."""

    engine: RolloutEngine
    student: str
    model: Any
    """The student, float32 on the CPU."""
    prompts: list[Prompt]
    follows: bool = True
    """Whether the responses had the log-probabilities of the student before other weights were sent."""

    @cached_property
    def rows(self) -> tuple[list[Prompt], list[int]]:
        """Prompts and seeds of the example responses."""
        rows = [prompt for prompt in self.prompts for _ in range(RESPONSES)]
        return rows, [1_000_003 * number + 17 for number in range(len(rows))]

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Return checked responses."""
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        return checked_responses(self.engine, self.engine.generate(prompts, seeds), prompts, vocabulary)

    @cached_property
    def responses(self) -> list[Response]:
        """Responses to `rows`."""
        return self.generate(*self.rows)

    @torch.no_grad()
    def distributions(self, prompt: Sequence[int], tokens: Sequence[int], temperature: float) -> Tensor:
        """Return the student's log-distribution before each token, float64 [T, V]."""
        logits = self.model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        return (logits.double() / temperature).log_softmax(-1)

    def load(self, version: int) -> int:
        """Send the student's weights; return the number of tensors that the engine did not take."""
        stream = list(WeightStream(self.model))
        taken = 0

        def counted() -> Iterator[tuple[str, Tensor]]:
            """Yield names and tensors, and count those that the engine has taken."""
            nonlocal taken
            for pair in stream:
                yield pair
                taken += 1

        self.engine.load_weights(counted(), version)
        return len(stream) - taken

    def probe_gap(self) -> float:
        """Return the largest difference of a probe from the student's log-probabilities, nats."""
        tokens = [*self.prompts[1].tokens, *self.responses[0].tokens][:32]
        expected = self.distributions(tokens[:1], tokens[1:], 1.0).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
        probes = checked_probe(self.engine, self.engine.probe(tokens), tokens).values()
        return max(((values.double() - expected).abs().max().item() for values in probes), default=torch.inf)
