"""Adapters: small trainable tensors on top of the frozen weights of a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from fireopd.distributed import collectives

__all__ = ["Adapter", "MergedWeight"]


@dataclass(frozen=True, slots=True, eq=False)
class MergedWeight:
    """Weight W + s U D of a layer with a low-rank update, computed when it is read. Its tensors may be sharded."""

    weight: Tensor
    """W, [out, in], or [in, out] if it is transposed."""
    up: Tensor
    """U, [out, rank]."""
    down: Tensor
    """D, [rank, in]."""
    scale: float
    """s."""
    transposed: bool = False
    """True if W is stored as [in, out]."""

    @property
    def dtype(self) -> torch.dtype:
        """The higher precision of W and U, since small updates would be rounded away in half precision."""
        return torch.promote_types(self.weight.dtype, self.up.dtype)

    @property
    def shape(self) -> torch.Size:
        """Unsharded shape of W."""
        return self.weight.shape

    def gathered(self) -> Tensor:
        """Return the merged weight. Every process must call if the tensors are sharded."""
        with torch.no_grad(), torch.autocast(self.up.device.type, enabled=False):
            update = collectives.full_tensor(self.up) @ collectives.full_tensor(self.down) * self.scale
            return (update.t() if self.transposed else update).to(self.dtype) + collectives.full_tensor(self.weight)


class Adapter(ABC):
    """Trainable tensors that change layers of a frozen model. The constructor stores settings."""

    @abstractmethod
    def check(self, student: str) -> None:
        """Raise `UserError` if the adapter cannot be attached to a model. Loads no weights."""

    @abstractmethod
    def attach(self, model: PreTrainedModel) -> None:
        """Freeze a model and add trainable tensors in float32, in place. The model's outputs stay as they are.

        Raises:
            UserError: if the adapter does not fit the model.
        """

    @abstractmethod
    def without(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which a model with this adapter computes as if it had none."""

    @abstractmethod
    def merged(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor | MergedWeight]:
        """Return the tensors of a model with this adapter under the names of the model without it, in their order."""

    @abstractmethod
    def trained(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of a state dict that belong to the adapter; the others are frozen."""

    @abstractmethod
    def shapes(self, config: PreTrainedConfig) -> dict[str, torch.Size]:
        """Return the shapes of the adapter's tensors by name. Loads no weights.

        Raises:
            UserError: if the adapter does not fit the model.
        """

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings as plain values, from which a checkpoint's adapter is made again."""

    def size(self, config: PreTrainedConfig) -> int:
        """Return the number of trainable parameters."""
        return sum(shape.numel() for shape in self.shapes(config).values())
