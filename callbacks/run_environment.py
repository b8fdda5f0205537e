"""Record of versions, machine, revision and seeds of a run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.analysis.provenance import environment
from fireopd.atomic_files import write_text
from fireopd.callbacks.run_folder import run_folder
from fireopd.training.rollout_loader import VALIDATION_SEED

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["RunRecord"]


class RunRecord(Callback):
    """Callback that writes `environment.json`. `fireopd fit` adds it to every run."""

    def setup(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Write the file."""
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            seeds = {"run": pl_module.data.seed, "validation": VALIDATION_SEED}
            record = {"seeds": seeds, "processes": trainer.world_size} | environment(Path.cwd())
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "environment.json", json.dumps(record, indent=1) + "\n")
