"""Record of versions, machine, revision, seeds and settings of a run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.analysis.provenance import environment
from fireopd.atomic_files import write_text
from fireopd.training.rollout_loader import VALIDATION_SEED
from fireopd.training.run_folder import write_on_rank_zero
from fireopd.training.run_settings import flatten

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["RunRecord"]


class RunRecord(Callback):
    """Callback that writes `environment.json`, and logs the settings. `fireopd fit` adds it to every run."""

    def setup(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Write the file, and log the settings to all loggers."""

        def write(folder: Path) -> None:
            """Write the file into the folder of the run, and log the settings."""
            seeds = {"run": pl_module.data.seed, "validation": VALIDATION_SEED}
            record = {"seeds": seeds, "processes": trainer.world_size} | environment(Path.cwd())
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "environment.json", json.dumps(record, indent=1) + "\n")
            for logger in trainer.loggers:
                logger.log_hyperparams(flatten(pl_module.settings))

        write_on_rank_zero(trainer, write)
