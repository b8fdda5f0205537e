"""Base class of prompt sources."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fireopd.types import Prompt
from fireopd.verifiers import Verifier

__all__ = ["PromptSource", "PromptText"]


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt before tokenization."""

    content: str | list[dict[str, str]]
    """Text to continue without a chat template, or chat messages for the chat template."""
    teacher: str
    """Name of the teacher that scores the trajectory."""
    task: str
    """Name under which the row is reported."""
    answer: str | None
    """Reference answer, if there is one."""
    id: str
    """Identifier, for example `train.jsonl:12`: unique in its source, shown in messages, seeds the rollouts."""
    details: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Further data for the verifier and the contexts of teachers."""
    solution: str | None = field(default=None, kw_only=True)
    """Reference solution, if there is one."""
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
        """Return the training prompts.

        Args:
            seed: seed for sources that draw their prompts.

        Raises:
            UserError: if the prompts cannot be read, or one of them is invalid.
        """

    @abstractmethod
    def validation(self) -> list[PromptText]:
        """Return the validation prompts, which do not depend on the seed of the run. May be empty.

        Raises:
            UserError: as in `training`.
        """

    def order(self, prompts: Sequence[Prompt], seed: int, epoch: int) -> list[int]:
        """Return the order of an epoch: indices of training prompts, equally many in every epoch.

        By default, all prompts are shuffled.

        Args:
            prompts: training prompts that fit into the context.
            seed: seed of the run.
            epoch: number of the epoch, from 0.
        """
        return torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
