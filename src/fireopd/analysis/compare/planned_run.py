"""Runs of a comparison: arguments, folders, and checks of existing folders.

A run is stored in `<out>/runs/<condition>/<method>/seed_<n>`, with its settings in `settings.json`. A comparison with a
single condition leaves out `<condition>`.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.analysis.compare.run_results import has_checkpoint, is_finished
from fireopd.atomic_files import write_text
from fireopd.errors import UserError
from fireopd.training.run_layout import run_folders

__all__ = ["PER_RUN_SETTINGS", "PlannedRun", "fit_arguments", "plan_runs"]

PER_RUN_SETTINGS = frozenset({"seed_everything", "trainer.default_root_dir"})
"""Settings that differ between the runs of a method."""


@dataclass(frozen=True)
class PlannedRun:
    """Run of one method with one seed."""

    method: str
    """Name of the method."""
    seed: int
    """Seed of the run."""
    folder: Path
    """Output folder."""
    arguments: tuple[str, ...]
    """Arguments of `fireopd fit`."""
    settings: Mapping[str, Any]
    """All resulting settings by dotted key, except those that differ between the runs of a method."""
    condition: str = ""
    """Name of the condition; empty if there is only one."""

    @property
    def name(self) -> str:
        """Name of the run in the terminal output."""
        return f"{self.condition} {self.method} seed {self.seed}".lstrip()

    @property
    def log(self) -> Path:
        """File of the output."""
        return self.folder / "log.txt"

    @property
    def finished(self) -> bool:
        """True if the run is finished."""
        return is_finished(self.folder)

    def check(self) -> None:
        """Raise `UserError` if the folder holds a run with other settings."""
        file = self.folder / "settings.json"
        if not file.exists():
            return
        earlier = json.loads(file.read_text())
        for key in sorted(earlier.keys() | self.settings.keys()):
            before, now = earlier.get(key), self.settings.get(key)
            if before != now:
                problem = f"{self.name} was started with {key} {_brief(before)}, which is now {_brief(now)}"
                raise UserError("--out", str(self.folder), problem, "restore the setting, or use another folder")

    def command(self) -> list[str]:
        """Return the command that starts the run, or resumes it from its last checkpoint."""
        resume = ["--ckpt_path", "last"] if has_checkpoint(self.folder) else []
        return [sys.executable, "-m", "fireopd", "fit", *self.arguments, *resume]

    def prepare(self) -> None:
        """Create the folder, write the settings, and delete the output of a run that cannot be resumed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "settings.json", json.dumps(self.settings, indent=1, sort_keys=True) + "\n")
        if not has_checkpoint(self.folder):
            for part in run_folders(self.folder):
                shutil.rmtree(part)


def fit_arguments(base: Sequence[str], method: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of `fireopd fit` for a method; later arguments take precedence.

    Args:
        base: arguments for the configuration that all methods share.
        method: arguments of the method.
        more: further arguments.
    """
    return (*base, *method, *more)


def plan_runs(
    out: Path,
    arguments: Mapping[tuple[str, str], Sequence[str]],
    settings: Mapping[tuple[str, str], Mapping[str, Any]],
    seeds: Sequence[int],
) -> list[PlannedRun]:
    """Return the runs ordered by seed, then as the arguments, so that a stopped comparison still has complete pairs.

    Args:
        out: folder of the comparison.
        arguments: arguments of `fireopd fit`, by names of condition and method.
        settings: resulting settings by dotted key, likewise.
        seeds: seeds of the runs of each method.

    Raises:
        UserError: if the folder holds a run with other settings.
    """
    runs = []
    for seed in seeds:
        for (condition, method), shared in arguments.items():
            folder = out / "runs" / condition / method / f"seed_{seed}"
            own = ("--seed_everything", str(seed), "--trainer.default_root_dir", str(folder))
            given = settings[condition, method]
            kept = {key: value for key, value in given.items() if key not in PER_RUN_SETTINGS}
            runs.append(PlannedRun(method, seed, folder, (*shared, *own), kept, condition))
    for run in runs:
        run.check()
    return runs


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
