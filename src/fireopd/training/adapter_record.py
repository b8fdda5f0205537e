"""Record of an adapter in a checkpoint: its settings, and the base model of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fireopd.errors import UserError
from fireopd.models.loading import Dtype
from fireopd.models.lora import LoRA

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["AdapterRecord"]


@dataclass(frozen=True)
class AdapterRecord:
    """Adapter of a checkpoint."""

    name: str
    """Name of its class."""
    settings: dict[str, Any]
    """Settings of the class."""
    dtype: Dtype
    """Dtype of the base model."""
    fingerprint: str
    """Fingerprint of the base model."""

    @classmethod
    def of(cls, module: "FiReOPDModule") -> "AdapterRecord | None":
        """Return the record of a run whose student is loaded; None if it trains all parameters."""
        if module.adapter is None:
            return None
        name, settings = type(module.adapter).__name__, module.adapter.settings
        return cls(name, settings, module.dtype_name, module.base_fingerprint or "")

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> "AdapterRecord | None":
        """Return the record in the part of a checkpoint that the module writes; None if there is none."""
        record = saved.get("adapter")
        return None if record is None else cls(**record)

    def check_base(self, name: str, fingerprint: str | None) -> None:
        """Raise `UserError` if a base model is not the one of the record.

        Args:
            name: its name.
            fingerprint: fingerprint of its weights.
        """
        if fingerprint != self.fingerprint:
            problem = "its weights are not those that the adapter of the checkpoint was trained on"
            raise UserError("model.student", name, problem, "restore the model that the run was started with")

    def adapter(self) -> LoRA:
        """Return the adapter, without its tensors.

        Raises:
            UserError: if it is of a class that cannot be exported.
        """
        if self.name != LoRA.__name__:
            remedy = "merge its tensors with a program that knows the class"
            raise UserError("model.adapter", self.name, "adapters of this class cannot be exported", remedy)
        return LoRA(**self.settings)
