"""Which runs a comparison is made of, what each is started with, and whether what lies in its folder is of its kind.

A run lies in `<out>/runs/<method>/seed_<n>`, with the settings that it was begun with in `settings.json`.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.analysis.compare.run_results import has_checkpoint, is_finished, versions
from fireopd.atomic_files import write_text
from fireopd.errors import UserError

OF_A_RUN = frozenset({"seed_everything", "trainer.default_root_dir"})
"""Settings in which the runs of a method differ."""


@dataclass(frozen=True)
class PlannedRun:
    """One method with one seed."""

    method: str
    """Name of the method."""
    seed: int
    """Seed of the run."""
    folder: Path
    """Where it is to lie."""
    arguments: tuple[str, ...]
    """What `fireopd fit` is started with."""
    settings: Mapping[str, Any]
    """All the settings that these come to, flat, but for those in which the runs of a method differ."""

    @property
    def name(self) -> str:
        """How it is called on the screen."""
        return f"{self.method} seed {self.seed}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log.txt"

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return is_finished(self.folder)

    def check(self) -> None:
        """Raise `UserError` if the folder holds a run of other settings."""
        file = self.folder / "settings.json"
        if not file.exists():
            return
        earlier = json.loads(file.read_text())
        for key in sorted(earlier.keys() | self.settings.keys()):
            before, now = earlier.get(key), self.settings.get(key)
            if before != now:
                problem = f"{self.name} was begun with {key} {_brief(before)}, which is now {_brief(now)}"
                raise UserError("--out", str(self.folder), problem, "take that back, or give another folder")

    def command(self) -> list[str]:
        """Return the command that begins the run, or has it go on where it was interrupted."""
        go_on = ["--ckpt_path", "last"] if has_checkpoint(self.folder) else []
        return [sys.executable, "-m", "fireopd", "fit", *self.arguments, *go_on]

    def prepare(self) -> None:
        """Make the folder, write down the settings, and clear away what a run left that cannot go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "settings.json", json.dumps(self.settings, indent=1, sort_keys=True) + "\n")
        if not has_checkpoint(self.folder):
            for part in versions(self.folder):
                shutil.rmtree(part)


def fit_arguments(base: Sequence[str], overlay: Path, more: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of `fireopd fit` for a method: what comes later overrides.

    Args:
        base: the configuration that all methods share.
        overlay: the method.
        more: further arguments.
    """
    return (*base, "--config", str(overlay), *more)


def plan(
    out: Path,
    arguments: Mapping[str, Sequence[str]],
    settings: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> list[PlannedRun]:
    """Return the runs, all methods of the first seed first: a comparison that is stopped is one of pairs all the same.

    Args:
        out: folder of the comparison.
        arguments: of `fireopd fit`, by method.
        settings: what these come to, flat, by method.
        seeds: of the runs of each method.

    Raises:
        UserError: if the folder holds a run of other settings.
    """
    runs = []
    for seed in seeds:
        for method, shared in arguments.items():
            folder = out / "runs" / method / f"seed_{seed}"
            own = ("--seed_everything", str(seed), "--trainer.default_root_dir", str(folder))
            kept = {key: value for key, value in settings[method].items() if key not in OF_A_RUN}
            runs.append(PlannedRun(method, seed, folder, (*shared, *own), kept))
    for run in runs:
        run.check()
    return runs


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
