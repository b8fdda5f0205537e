"""Folder of a run, locked against other runs."""

from pathlib import Path
from typing import IO, TYPE_CHECKING

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.atomic_files import lock
from fireopd.distributed import collectives
from fireopd.errors import UserError

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["RunLock", "run_folder"]

CONFIG = "config.yaml"
"""File of the run's settings, which the command line writes."""


def run_folder(trainer: Trainer) -> Path:
    """Return the folder that a run writes to. Every process must call."""
    return Path(trainer.log_dir or trainer.default_root_dir)


class RunLock(Callback):
    """Callback that locks the folder of the run. `fireopd fit` adds it to every run."""

    def __init__(self) -> None:
        """Create without the lock."""
        self.file: IO[str] | None = None

    def setup(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Acquire the lock.

        Raises:
            UserError: if another run holds the lock, or if the folder holds an earlier run.
        """
        folder, key = run_folder(trainer), "trainer.default_root_dir"
        error = None
        if trainer.is_global_zero:
            try:
                self.file = lock(folder)
            except BlockingIOError:
                problem = "another run is writing into this folder"
                error = UserError(key, str(folder), problem, "give another one, or wait for it")
            else:
                if (folder / CONFIG).exists():
                    problem = "it holds an earlier run"
                    error = UserError(key, str(folder), problem, "give each run a separate folder")
        collectives.raise_on_all_ranks(error)

    def teardown(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Release the lock."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: "FiReOPDModule", exception: BaseException) -> None:
        """Release the lock."""
        self._release()

    def _release(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
