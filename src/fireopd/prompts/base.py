"""Base class of prompt sources."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fireopd.types import Prompt
from fireopd.verifiers import Verifier


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt before the tokenizer has seen it."""

    content: str | list[dict[str, str]]
    """Text to go on from as it is, or chat messages for the chat template."""
    teacher: str
    """Name of the teacher that judges the trajectory."""
    task: str
    """Name under which the row is reported."""
    answer: str | None
    """Reference answer, if there is one."""
    id: str
    """Where it stands, for example `train.jsonl:12`: unique in its source, shown in messages, seeds the rollouts."""
    details: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Further data for the verifier."""
    source: str = field(default="", kw_only=True)
    """Name of the source in a mixture; empty if there is only one source."""


class PromptSource(ABC):
    """Training and validation prompts of a run, and the verifiers that grade the responses to them."""

    verifier: Verifier | None = None
    """Grades the responses; None if they are not graded."""

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        """Verifiers by `PromptText.source`: `verifier` under the empty name, nothing if responses are not graded."""
        return {} if self.verifier is None else {"": self.verifier}

    @abstractmethod
    def training(self, seed: int) -> list[PromptText]:
        """Return the training prompts; a source that draws them draws with this seed.

        Raises:
            UserError: if they cannot be had, or one of them is no prompt.
        """

    @abstractmethod
    def validation(self) -> list[PromptText]:
        """Return the validation prompts: the same whatever the run's seed. May be empty.

        Raises:
            UserError: as in `training`.
        """

    def order(self, prompts: Sequence[Prompt], seed: int, epoch: int) -> list[int]:
        """Return the order of an epoch: indices of training prompts, as many in every epoch. Here: all, shuffled.

        Args:
            prompts: those of `training` that fit into the context.
            seed: of the run.
            epoch: its number, from 0.
        """
        return torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
