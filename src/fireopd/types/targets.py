"""Targets of the update: the output of a method and the input of the loss."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fireopd.types.scores import ScoredBatch

__all__ = ["Targets"]


@dataclass(frozen=True, slots=True)
class Targets:
    """Per-token targets of the update, constant during it."""

    keep: Tensor
    """bool [N]. Trajectories that the filter keeps."""
    mask: Tensor
    """bool [N, L]. Response tokens of kept trajectories."""
    weight: Tensor
    """float32 [N, L]. Normalised token weights, 0 off `mask`."""
    advantage: Tensor
    """float32 [N, L]. Nats; positive raises the token's probability. 0 off `mask`."""
    importance: Tensor
    """float32 [N, L]. Truncated importance weight between engine and trainer, 0 off `mask`."""
    coefficient: Tensor | None = None
    """float32 [N, L]. Factor of the divergence of each token, 0 off `mask`; None unless the objective is direct."""

    @classmethod
    def nothing(cls, batch: ScoredBatch) -> Targets:
        """Return targets that keep no trajectory of a batch."""
        nothing = torch.zeros(batch.tokens.shape, device=batch.tokens.device)
        return cls(torch.zeros_like(batch.finished), nothing.bool(), nothing, nothing, nothing)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors by name, those that are None left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def select(self, rows: Tensor, width: int) -> Targets:
        """Return the rows of an int64 index, cut to `width` tokens."""
        rowwise = {name: value[rows] for name, value in self.tensors.items()}
        return Targets(**{name: value if name == "keep" else value[:, :width] for name, value in rowwise.items()})
