"""What every rollout engine is and does.

An engine speaks lists of numbers, not tensors, and knows nothing of training. Its weights have a version, which goes
into every batch, so that a batch from old weights can be refused; and after new weights were sent, the engine is asked
for the log-probabilities of a probe, since engines have been seen to report success and go on with the old weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fireopd.errors import UserError
from fireopd.models.loading import resolve
from fireopd.types import Prompt, Response, Sampling

NO_WEIGHTS = -1
"""The version of an engine whose weights were not set by a trainer."""


@dataclass
class RolloutEngine(ABC):
    """Samples responses."""

    max_response_length: int = 128
    """Longest response, tokens; longer ones are cut and marked as unfinished."""
    temperature: float = 1.0
    """Divides the logits before sampling; 0 takes the likeliest token, which no training can learn from."""
    top_p: float = 1.0
    """Draw from the smallest set of likeliest tokens with this much probability; below 1 needs importance_cap: null."""
    top_k: int = 0
    """Draw from this many likeliest tokens, 0 for all; above 0 needs importance_cap: null."""
    max_probe_gap: float = 1e-3
    """Largest difference of a probe's log-probabilities between engine and trainer after new weights were sent, nats;
    an engine in bfloat16 needs some 0.5."""
    policy_version: int = field(default=NO_WEIGHTS, init=False, compare=False, repr=False)
    """Optimizer steps that the engine's weights have seen."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.max_response_length < 1:
            raise ValueError(f"max_response_length must be at least 1, got {self.max_response_length}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be greater than 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}; 0 for all tokens")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}; 0 for the likeliest token")
        if not self.max_probe_gap > 0:
            raise ValueError(f"max_probe_gap must be greater than 0, got {self.max_probe_gap}")

    @property
    def sampling(self) -> Sampling:
        """The distribution that responses are drawn from."""
        return Sampling(self.temperature, self.top_p, self.top_k)

    @property
    def longest_trajectory(self) -> int | None:
        """The most tokens that prompt and response can have together; None for the context of the model."""
        return None

    def check(self, key: str, student: str) -> None:
        """Raise `UserError` if it can be known that the engine will not start. Loads nothing.

        Args:
            key: the setting that the engine comes from, for example `data.engine`.
            student: the model that it will be set up with.
        """
        resolve(student, "model.student")

    def refusal_of_overlap(self) -> UserError | None:
        """Return why the engine cannot sample while the trainer computes; None if it can."""
        return None

    def memory(self, parameters: int, cache_per_token: int, rows: int, tokens: int) -> dict[str, tuple[int, str]]:
        """Return what the engine will hold in the memory of this process: bytes, and what they are made of, by part.

        Args:
            parameters: of the student.
            cache_per_token: numbers that attention keeps for a token.
            rows: responses that this process will ask for at once.
            tokens: of the longest trajectory.
        """
        return {}

    @abstractmethod
    def setup(self, model: str, device: torch.device) -> None:
        """Load a model by its name. The constructor only stores settings. Every process must call."""

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Return one response for each prompt, in order; what a row gets depends on its prompt and seed alone.

        Every process must call, with prompts of its own, or none; an error is raised by the process that has it. It may
        be called in another thread, never beside another call: processes do not talk in it by the trainer's group.
        """

    @abstractmethod
    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Replace the weights by (name, tensor) pairs named as in the Hugging Face model, and take their version.

        Every process must call and take every pair, since gathering a sharded tensor needs them all.
        """

    @abstractmethod
    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return log-probabilities, nats at temperature 1, of a sequence's tokens from the second on.

        One list for each copy of the weights that the engine samples from, by a name that a person can find it by.
        Every process must call with the same tokens.
        """

    def for_another_model(self) -> "RolloutEngine":
        """Return an engine of the same settings that has loaded nothing, to sample from another model."""
        return replace(self)

    def close(self) -> None:
        """Give memory back; the engine has to be set up anew."""
        self.policy_version = NO_WEIGHTS
