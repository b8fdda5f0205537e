"""The trajectories of one rollout, side by side."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fireopd.types.prompts import Prompt
from fireopd.types.responses import Sampling


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """What the student wrote, before any teacher has seen it: the rows of this rank."""

    tokens: Tensor
    """int64 [B, L]. Prompt and response token ids."""
    attention_mask: Tensor
    """bool [B, L]. False on padding."""
    response_mask: Tensor
    """bool [B, L]. True on tokens that the student sampled, its end-of-sequence token included."""
    sampling_logprobs: Tensor
    """float32 [B, L]. Log-probability of each sampled token under the engine's copy of the student."""
    groups: Tensor
    """int64 [B]. Responses to one prompt share a number."""
    finished: Tensor
    """bool [B]. False where the response was cut at the length limit."""
    prompts: tuple[Prompt, ...]
    """[B]. What each response answers."""
    sampling: Sampling
    """The distribution that the responses were drawn from."""
    policy_version: int
    """Optimizer steps that the sampling weights had seen."""
    rewards: Tensor | None = None
    """float32 [B]. Grade of each response in [0, 1], where a verifier was asked."""
    votes: Tensor | None = None
    """int64 [B]. Equal for equal final answers to one prompt, -1 for none, where a verifier was asked."""
    seconds: float = 0.0
    """Time that the run waited for the rollout."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """[B]. Name of the teacher that judges each trajectory."""
        return tuple(prompt.teacher for prompt in self.prompts)

    @property
    def tasks(self) -> tuple[str, ...]:
        """[B]. Task of each prompt."""
        return tuple(prompt.task for prompt in self.prompts)

    def to(self, device: torch.device | str) -> RolloutBatch:
        """Return the batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def select(self, rows: Tensor) -> RolloutBatch:
        """Return the rows of an int64 index, without the padding that they do not need."""
        width = int(self.attention_mask[rows].sum(-1).max()) if len(rows) else 1
        index = rows.tolist()
        return replace(
            self,
            tokens=self.tokens[rows, :width],
            attention_mask=self.attention_mask[rows, :width],
            response_mask=self.response_mask[rows, :width],
            sampling_logprobs=self.sampling_logprobs[rows, :width],
            groups=self.groups[rows],
            finished=self.finished[rows],
            prompts=tuple(self.prompts[row] for row in index),
            rewards=None if self.rewards is None else self.rewards[rows],
            votes=None if self.votes is None else self.votes[rows],
        )
