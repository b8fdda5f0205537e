"""Checkpoints of a run: the last and the best one, written atomically."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.distributed import collectives
from fireopd.errors import UserError
from fireopd.training import checkpoint_files
from fireopd.training.checkpoint_writer import CheckpointWriter
from fireopd.training.run_folder import run_folder
from fireopd.training.step_loop import StepCallback

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["RunCheckpoint"]

PATIENCE = 30.0
"""Seconds that a stopping process waits for the other processes to write a checkpoint together."""


class RunCheckpoint(Checkpoint, StepCallback):
    """Callback that writes `last.ckpt`, and `best.ckpt` at the validation with the best value so far.

    `last.ckpt` is written at each validation or every n steps, at the end of an epoch or of the run, and when the run
    is stopped.
    """

    def __init__(
        self, every_n_train_steps: int | None = None, monitor: str = "val/avg_at_k", background: bool = False
    ) -> None:
        """Store the settings.

        Args:
            every_n_train_steps: optimizer steps from one checkpoint to the next; null for one at each validation.
            monitor: validation metric; the largest value is the best.
            background: copy the state to host memory, and write the copy while training continues. At most one write
                is in progress: the next checkpoint waits for it, and so does the end of the run.
        """
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps must be at least 1, got {every_n_train_steps}; null for none")
        self.every_n_train_steps, self.monitor = every_n_train_steps, monitor
        self.background = background
        self.writer = CheckpointWriter(background=background)
        self.folder = Path()
        self.started = False
        self.saved_step = 0
        self.best: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return `value`, `step` and `path` of the best checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoint."""
        self.best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Set the folder of the checkpoints."""
        self.folder = run_folder(trainer) / "checkpoints"
        self.started, self.saved_step = True, trainer.global_step

    def on_step_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Save every n steps, and after the last step while the epoch is open, so that a longer run can resume."""
        self.writer.poll()
        every = self.every_n_train_steps
        due = every is not None and trainer.global_step // every > self.saved_step // every
        enough = 0 < trainer.max_steps <= trainer.global_step
        if due or enough or trainer.is_last_batch or trainer.should_stop:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Save the best checkpoint, and the last one unless it is saved every n steps."""
        if not self.started or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise UserError("RunCheckpoint.monitor", self.monitor, "no such validation metric", f"choose from {known}")
        value, best = float(trainer.callback_metrics[self.monitor]), self.folder / checkpoint_files.BEST
        improved = not self.best or value > self.best["value"]
        if improved:
            self.best = {"value": value, "step": trainer.global_step, "path": str(best)}
        if self.every_n_train_steps is None:
            self._save(trainer, *[best] * improved)
        elif improved:
            self.writer.write(trainer, [best])

    def on_train_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Wait for the write in progress."""
        self.writer.wait()

    def on_exception(self, trainer: Trainer, pl_module: "FiReOPDModule", exception: BaseException) -> None:
        """Save the last checkpoint if all processes stopped, and log how to resume."""
        if not self.started:
            if isinstance(exception, KeyboardInterrupt | SIGTERMException):
                rank_zero_info("Stopped before the first step: nothing was saved. Start again with the same command.")
            return
        last = self.folder / checkpoint_files.LAST
        together = collectives.all_ranks_arrive("exception", PATIENCE)
        self._complete(None if together else PATIENCE)
        if not together:
            rank_zero_warn(f"The processes stopped at different places: {last} is unchanged")
        elif collectives.all_reduce_max(int(pl_module.data.interrupts.torn), pl_module.device):
            rank_zero_warn(f"Stopped within the updates of a step: {last} is unchanged")
        else:
            try:
                self._save(trainer)
            except UserError as error:
                rank_zero_warn(str(error))
            self._complete()
        if checkpoint_files.standing(last).exists():
            rank_zero_info(f"Stopped after step {trainer.global_step}. Resume with --ckpt_path {last}")
        else:
            rank_zero_info("No checkpoint was written. Start again with the same command.")

    def on_fit_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Log the best value."""
        if self.best:
            value, step, path = (self.best[name] for name in ("value", "step", "path"))
            rank_zero_info(f"Best {self.monitor}: {value:.3f}, step {step}: {path}")

    def _save(self, trainer: Trainer, *more: Path) -> None:
        self.writer.write(trainer, [*more, self.folder / checkpoint_files.LAST])
        self.saved_step = trainer.global_step

    def _complete(self, seconds: float | None = None) -> None:
        """Wait for the write in progress, at most some seconds, and warn if it fails."""
        try:
            if not self.writer.wait(seconds):
                rank_zero_warn("The last checkpoint was not completely written: the one before is unchanged")
        except UserError as error:
            rank_zero_warn(str(error))
