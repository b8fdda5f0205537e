"""Validation of the student: graded rollouts of held-out prompts -> metrics of each task."""

from lightning import LightningModule

from fireopd.training.data import RolloutDataModule
from fireopd.training.validation_metrics import ValidationMetrics, validation_scalars
from fireopd.types import RolloutBatch

__all__ = ["ValidatedModule"]


class ValidatedModule(LightningModule):
    """Lightning module with a student that is validated on held-out prompts."""

    def __init__(self) -> None:
        """Begin before the first optimizer step, without a validation."""
        super().__init__()
        self.policy_version = 0
        self.validated: tuple[int, dict[str, float]] = (-1, {})

    @property
    def data(self) -> RolloutDataModule:
        """Data module of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics of held-out prompts."""
        self.validation = ValidationMetrics(self.data.tasks).to(self.device)

    def validation_step(self, rollouts: RolloutBatch, batch_idx: int) -> None:
        """Update the metrics with graded rollouts of held-out prompts."""
        self.validation.update(rollouts)

    def on_validation_epoch_end(self) -> None:
        """Log avg@k, pass@k, maj@k, finish rate and length of each task."""
        results = self.validation.compute()
        self.validated = (self.policy_version, results)
        self.log_dict(validation_scalars(results))
