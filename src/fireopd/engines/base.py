"""Rollout engine interface. Entry-point group: `fireopd.engines`.

An engine exchanges Python lists, not tensors, and is independent of the training code. Its weights have a version that
is stored in each batch, so that a batch from stale weights can be rejected. After each weight sync, the trainer and the
engine score a probe sequence and compare: some engines report success but keep the old weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fireopd.errors import UserError
from fireopd.models.loading import resolve
from fireopd.types import Prompt, Response, Sampling

__all__ = ["NO_WEIGHTS", "MemoryPart", "RolloutEngine", "RowRequest", "ignore_response"]

NO_WEIGHTS = -1
"""Policy version of an engine that has not received weights from a trainer."""


def ignore_response(row: int, response: Response) -> None:
    """Do nothing. Default of `RolloutEngine.announce`."""


def _announce_at(
    announce: Callable[[int, Response], None], places: Sequence[int], row: int, response: Response
) -> None:
    announce(places[row], response)


class MemoryPart(NamedTuple):
    """One part of the memory of an engine."""

    size: int
    """Bytes."""
    formula: str
    """Formula of the size."""


@dataclass(frozen=True, slots=True)
class RowRequest:
    """One response to sample."""

    prompt: Prompt
    """Prompt, followed by the start of the response if it is not empty."""
    seed: int
    """Seed of the row."""
    max_length: int
    """Maximum number of tokens to sample."""
    temperature: float
    """Divisor of the logits."""


@dataclass
class RolloutEngine(ABC):
    """Sampler of responses."""

    max_response_length: int = 128
    """Maximum response length, tokens; longer responses are cut and marked as unfinished."""
    temperature: float = 1.0
    """Divisor of the logits; 0 selects the most likely token, from which training gets no signal."""
    top_p: float = 1.0
    """Nucleus sampling: smallest set of tokens with this total probability; below 1 requires importance_cap: null."""
    top_k: int = 0
    """Number of most likely tokens to sample from, 0 for all; above 0 requires importance_cap: null."""
    max_probe_gap: float = 1e-3
    """Maximum mean difference, in nats, between engine and trainer in the log-probabilities of a probe after a weight
    sync; single tokens may differ by 20 times as much. At least 0.1 if one of them is known to compute in half
    precision."""
    policy_version: int = field(default=NO_WEIGHTS, init=False, compare=False, repr=False)
    """Number of optimizer steps behind the engine's weights."""
    announce: Callable[[int, Response], None] = field(
        default_factory=lambda: ignore_response, init=False, compare=False, repr=False
    )
    """Called with the index of a row and its response. An engine that completes rows one by one may call it for each
    row during `generate`, from any thread, so that a response is scored before the last one is complete."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.max_response_length < 1:
            raise ValueError(f"max_response_length must be at least 1, got {self.max_response_length}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be greater than 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}; 0 for all tokens")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}; 0 for the most likely token")
        if not self.max_probe_gap > 0:
            raise ValueError(f"max_probe_gap must be greater than 0, got {self.max_probe_gap}")

    @property
    def sampling(self) -> Sampling:
        """Sampling distribution of the responses."""
        return Sampling(self.temperature, self.top_p, self.top_k)

    @property
    def longest_trajectory(self) -> int | None:
        """Maximum number of tokens of prompt and response together; None for the context of the model."""
        return None

    @property
    def releases_memory(self) -> bool:
        """True if the engine releases its GPU memory between rollouts."""
        return False

    def check(self, key: str, student: str) -> None:
        """Raise `UserError` if the engine cannot start with this model. Loads nothing.

        Args:
            key: setting that holds the engine, for example `data.engine`.
            student: model that the engine will be set up with.
        """
        resolve(student, "model.student")

    def refusal_of_overlap(self) -> UserError | None:
        """Return the reason why the engine cannot sample while the trainer computes, or None if it can."""
        return None

    def memory(
        self, parameters: int, cache_per_token: int, rows: int, tokens: int, gpu: int | None = None
    ) -> dict[str, MemoryPart]:
        """Return the expected memory of the engine in this process, by name of the part.

        Args:
            parameters: number of parameters of the student.
            cache_per_token: number of key and value elements per token.
            rows: number of concurrent responses of this process.
            tokens: length of the longest trajectory.
            gpu: memory of the GPU, bytes; None without one.
        """
        return {}

    def expect_prompts(self, longest: int) -> None:  # noqa: B027 - most engines need no length
        """Store the number of tokens of the longest prompt, before `setup`; an engine may size its cache by it."""

    @abstractmethod
    def setup(self, model: str, device: torch.device) -> None:
        """Load a model by name; the constructor only stores settings. Every process must call."""

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Return one response per prompt, in order. A response depends only on its prompt and seed.

        Every process must call with its own prompts, possibly none. Only the failing process raises an error. The call
        may come from another thread, but never concurrently with another call; it must not use the process group of
        the trainer.
        """

    def sample(self, rows: Sequence[RowRequest]) -> list[Response]:
        """Return one response per row, in order, within the length and at the temperature of each row.

        Every process must call. Calls `generate` if all rows have the settings of the engine, else `generate_mixed`.
        """
        own = (self.max_response_length, self.temperature)
        if any((row.max_length, row.temperature) != own for row in rows):
            return self.generate_mixed(rows)
        return self.generate([row.prompt for row in rows], [row.seed for row in rows])

    def requests(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[RowRequest]:
        """Return rows with the length and the temperature of the engine."""
        settings = (self.max_response_length, self.temperature)
        return [RowRequest(prompt, seed, *settings) for prompt, seed in zip(prompts, seeds, strict=True)]

    def generate_mixed(self, rows: Sequence[RowRequest]) -> list[Response]:
        """Return one response per row: by a call of `generate` for each combination of length and temperature.

        An engine that samples them together overrides this method. So does one that processes share, since they need
        not have the same combinations.
        """
        places: dict[tuple[int, float], list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault((row.max_length, row.temperature), []).append(place)
        own, announce, responses = (self.max_response_length, self.temperature), self.announce, dict[int, Response]()
        try:
            for (self.max_response_length, self.temperature), part in sorted(places.items()):
                if announce is not ignore_response:
                    self.announce = partial(lambda part, row, response: announce(part[row], response), part)
                sampled = self.generate([rows[place].prompt for place in part], [rows[place].seed for place in part])
                responses |= dict(zip(part, sampled, strict=True))
        finally:
            (self.max_response_length, self.temperature), self.announce = own, announce
        return [responses[place] for place in range(len(rows))]

    @abstractmethod
    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Replace the weights with (name, tensor) pairs in Hugging Face naming, and store their version.

        Every process must call and consume all pairs, since gathering a sharded tensor is a collective operation.
        """

    @abstractmethod
    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return log-probabilities, in nats at temperature 1, of the second and later tokens of a sequence.

        The result has one list per copy of the weights, by a name that identifies the copy in messages. Every process
        must call with the same tokens.
        """

    def for_another_model(self) -> "RolloutEngine":
        """Return a new engine with the same settings for another model, without loading anything."""
        return replace(self)

    def close(self) -> None:
        """Release memory. The engine needs another `setup` before its next use."""
        self.policy_version = NO_WEIGHTS
