"""What a method makes of a scored batch: the last of the data of a step, and all that the loss reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fireopd.types import ScoredBatch


@dataclass(frozen=True, slots=True)
class Targets:
    """What the student is asked to do with each token. Constant during the update."""

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
    """float32 [N, L]. By what the divergence of each token is multiplied, 0 off `mask`; none without a divergence."""

    @classmethod
    def nothing(cls, batch: ScoredBatch) -> Targets:
        """Return the targets that keep nothing of a batch."""
        nothing = torch.zeros(batch.tokens.shape, device=batch.tokens.device)
        return cls(torch.zeros_like(batch.finished), nothing.bool(), nothing, nothing, nothing)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The targets by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def of_objective(self) -> dict[str, Tensor]:
        """Those that an objective decides, by name."""
        return {name: value for name, value in self.tensors.items() if name in ("advantage", "coefficient")}

    def select(self, rows: Tensor, width: int) -> Targets:
        """Return the rows of an int64 index, cut to `width` tokens."""
        rowwise = {name: value[rows] for name, value in self.tensors.items()}
        return Targets(**{name: value if name == "keep" else value[:, :width] for name, value in rowwise.items()})

    @classmethod
    def of_rows(cls, parts: Sequence[Targets]) -> Targets:
        """Return the targets of several parts of a batch, one under the other."""
        return cls(**{name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})
