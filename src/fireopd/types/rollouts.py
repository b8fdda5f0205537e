"""Batches of rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fireopd.types.prompts import Prompt
from fireopd.types.responses import Sampling, Source

__all__ = ["RecordedSignals", "RolloutBatch", "tokens_by"]


def tokens_by(source: Source, sources: Tensor | None, response_mask: Tensor) -> Tensor:
    """Return bool [N, L], True on the tokens of one author.

    Args:
        source: the author.
        sources: uint8 [N, L]. Author of each token; None if the student sampled all of the mask.
        response_mask: bool [N, L]. Response tokens.
    """
    if sources is not None:
        return sources == source
    return response_mask if source == Source.STUDENT else torch.zeros_like(response_mask)


@dataclass(frozen=True, slots=True)
class RecordedSignals:
    """Signals of recorded trajectories: scores by teachers that are not loaded."""

    values: Mapping[str, Tensor]
    """float32 [B, L], or [B] for signals of trajectories, by name (see `fireopd.types.signals.SIGNALS`)."""
    versions: Tensor
    """int64 [B]. Optimizer steps of the weights that sampled each trajectory, in the run that recorded it."""

    def to(self, device: torch.device | str) -> RecordedSignals:
        """Return the signals on another device."""
        return RecordedSignals({name: v.to(device) for name, v in self.values.items()}, self.versions.to(device))

    def select(self, rows: Tensor, width: int) -> RecordedSignals:
        """Return the rows of an int64 index, cut to `width` tokens."""
        values = {name: v[rows] if v.ndim == 1 else v[rows, :width] for name, v in self.values.items()}
        return RecordedSignals(values, self.versions[rows])


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """Sampled trajectories of this rank, before scoring."""

    tokens: Tensor
    """int64 [B, L]. Prompt and response token ids."""
    attention_mask: Tensor
    """bool [B, L]. False on padding."""
    response_mask: Tensor
    """bool [B, L]. True on sampled tokens, including the end-of-sequence token; on given tokens only if the objective
    trains on them."""
    sampling_logprobs: Tensor
    """float32 [B, L]. Log-probability of each sampled token under its author, nats: the engine's copy of the student,
    or the teacher that wrote it."""
    groups: Tensor
    """int64 [B]. Group number, equal for responses to the same prompt."""
    finished: Tensor
    """bool [B]. False for responses truncated at the length limit."""
    prompts: tuple[Prompt, ...]
    """[B]. Prompt of each response."""
    sampling: Sampling
    """Sampling settings of the responses."""
    policy_version: int
    """Optimizer steps of the weights that sampled the responses."""
    rewards: Tensor | None = None
    """float32 [B]. Grade of each response in [0, 1]; None without a verifier."""
    votes: Tensor | None = None
    """int64 [B]. Number of the final answer, equal for equal answers to one prompt, -1 for no answer; None without a
    verifier."""
    recorded: RecordedSignals | None = None
    """Signals of recorded trajectories; None for trajectories that this run sampled."""
    sources: Tensor | None = None
    """uint8 [B, L]. Author of each token, a `fireopd.types.responses.Source`; None if the student sampled all of the
    response mask."""
    staleness: Tensor | None = None
    """int64 [B]. Optimizer steps of the student since the weights that sampled each row; None before its step."""
    number: int = 0
    """Number of the batch in the run, from 0."""
    seconds: float = 0.0
    """Time that training waited for the rollout, seconds."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """[B]. Name of each trajectory's teacher."""
        return tuple(prompt.teacher for prompt in self.prompts)

    @property
    def tasks(self) -> tuple[str, ...]:
        """[B]. Task of each prompt."""
        return tuple(prompt.task for prompt in self.prompts)

    def tokens_by(self, source: Source) -> Tensor:
        """Return bool [B, L], True on the tokens of one author."""
        return tokens_by(source, self.sources, self.response_mask)

    @property
    def written(self) -> Tensor:
        """All tokens of the response, given ones included, bool [B, L]."""
        return self.response_mask | self.tokens_by(Source.GIVEN)

    def to(self, device: torch.device | str) -> RolloutBatch:
        """Return the batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: v.to(device) for name, v in values.items() if isinstance(v, Tensor | RecordedSignals)
        }
        return replace(self, **moved)

    def select(self, rows: Tensor) -> RolloutBatch:
        """Return the rows of an int64 index, with common padding removed."""
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
            recorded=None if self.recorded is None else self.recorded.select(rows, width),
            sources=None if self.sources is None else self.sources[rows, :width],
            staleness=None if self.staleness is None else self.staleness[rows],
        )
