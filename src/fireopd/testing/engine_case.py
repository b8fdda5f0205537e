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
from fireopd.testing.candidate_tokens import Candidates
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

    def candidates(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], temperature: float
    ) -> Iterator[tuple[Candidates, Tensor]]:
        """Yield the candidates before each token of each response, and the tokens."""
        for prompt, response in zip(prompts, responses, strict=True):
            distributions = self.distributions(prompt.tokens, response.tokens, temperature)
            yield Candidates(distributions, self.engine), torch.tensor(response.tokens)

    def gap(self, prompts: Sequence[Prompt], responses: Sequence[Response], temperature: float) -> float:
        """Return the distance of the responses' log-probabilities from those of the candidates, nats."""
        rows = zip(self.candidates(prompts, responses, temperature), responses, strict=True)
        gaps = [own.gaps(tokens, torch.tensor(r.logprobs, dtype=torch.float64)) for (own, tokens), r in rows]
        return distance(torch.cat(gaps)) * min(1.0, temperature)  # a temperature below 1 magnifies rounding

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
        """Return the distance of a probe from the student's log-probabilities, nats; the largest of all copies."""
        tokens = [*self.prompts[1].tokens, *self.responses[0].tokens][:32]
        expected = self.distributions(tokens[:1], tokens[1:], 1.0).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
        probes = checked_probe(self.engine, self.engine.probe(tokens), tokens).values()
        return max((distance((values.double() - expected).abs()) for values in probes), default=torch.inf)


def distance(gaps: Tensor) -> float:
    """Return the mean of distances, or a twentieth of the largest, as `RolloutEngine.max_probe_gap` bounds them."""
    return max(gaps.mean().item(), gaps.max().item() / 20)
