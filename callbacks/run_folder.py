"""Where the callbacks of a run write."""

from pathlib import Path

from lightning import Trainer


def run_folder(trainer: Trainer) -> Path:
    """Return the folder that a run writes into. Every process must call."""
    return Path(trainer.log_dir or trainer.default_root_dir)
