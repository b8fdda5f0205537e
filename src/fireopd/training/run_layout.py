"""Layout of run folders: `version_<n>` in the trainer's `default_root_dir`, with the files that several modules name.

Readers of runs import it without Lightning and PyTorch.
"""

import re
from pathlib import Path

__all__ = ["CONFIG", "WARNINGS", "next_folder", "run_folders"]

NAME = re.compile(r"version_(\d+)")
"""Name of the folder of a run."""
CONFIG = "config.yaml"
"""File of the run's settings, which the command line writes."""
WARNINGS = "warnings.jsonl"
"""File of the warnings about the run, one JSON object with `step` and `warning` per line."""


def run_folders(root: Path) -> list[Path]:
    """Return the folders of all runs in a folder, in the order of their numbers."""
    found = {path: NAME.fullmatch(path.name) for path in root.glob("version_*") if path.is_dir()}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name.partition("_")[2]))


def next_folder(root: Path) -> Path:
    """Return the folder of a new run, which does not exist yet."""
    folders = run_folders(root)
    return root / f"version_{int(folders[-1].name.partition('_')[2]) + 1 if folders else 0}"
