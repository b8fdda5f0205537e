"""Lightning's loop over the batches of an epoch, with a point between a step and the validation after it.

At this point the step is complete and its row of metrics is written: a run is saved and stopped there without loss.
"""

from typing import TYPE_CHECKING, Any, Literal

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd import private_apis

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["StepCallback", "StepLoop", "validation_state"]

ValidationState = Literal["none", "due", "done"]
"""Validation after the last complete step: not due, due and not complete, or complete."""


class StepCallback(Callback):
    """Callback with a hook after each step."""

    def on_step_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Act after a step whose row of metrics is written, before the validation that may be due."""


class StepLoop(private_apis.TrainingEpochLoop):
    """Loop that calls `on_step_end` of the callbacks, and knows whether a validation is due."""

    validation: ValidationState = "none"
    at_validation = False
    """True if the loop resumes at a validation. It then begins there, also if the interval has changed since."""

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Replace the loop of a trainer that has not started."""
        own = trainer.fit_loop.epoch_loop
        if not isinstance(own, cls):
            loop = trainer.fit_loop.epoch_loop = cls(trainer, min_steps=own.min_steps, max_steps=own.max_steps)
            loop.val_loop = own.val_loop  # it knows the loaders

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Restore the place, as `rewind_loops` sets it."""
        super().on_load_checkpoint(state_dict)
        self.at_validation = state_dict.get("validation") in ("due", "done")

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        # Lightning counts the step before a validation at its end, which a resume at the validation must reach.
        return (self.at_validation and self.restarting) or super()._should_check_val_fx(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Call the hooks, then validate if it is due."""
        due = self._should_check_val_fx(data_fetcher) and not self._skip_next_val
        self.validation = "due" if due else "none"
        for callback in self.trainer.callbacks:
            if isinstance(callback, StepCallback):
                callback.on_step_end(self.trainer, self.trainer.lightning_module)
        super().on_advance_end(data_fetcher)
        self.validation, self.at_validation = "none", False


def validation_state(trainer: Trainer) -> ValidationState | None:
    """Return the state of the validation after the last complete step; None if the trainer has another loop."""
    loop = trainer.fit_loop.epoch_loop
    return loop.validation if isinstance(loop, StepLoop) else None
