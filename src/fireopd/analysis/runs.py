"""Status of the runs of a folder: read from their files, without a model and without a change to them."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import yaml

from fireopd.analysis.metrics_file import Curve, read_metrics
from fireopd.atomic_files import is_locked
from fireopd.training.run_layout import CONFIG, run_folders

__all__ = ["RunStatus", "accuracy_curve", "find_runs", "read_settings"]

METRIC = re.compile(r"val/.+/avg_at_k")
"""Columns of `metrics.csv` with the accuracy of a task."""
STRATEGIES = ("trajectory_filter", "token_weighter", "objective")
"""Settings of the model that make the method."""

State = Literal["running", "finished", "stopped", "not started"]


@dataclass(frozen=True)
class RunStatus:
    """Status of a run, as its files show it."""

    folder: Path
    """Folder of the run, `version_<n>`."""
    state: State
    """running: a process holds the lock; finished: `summary.json` is written; stopped: some steps are complete."""
    steps: int
    """Complete steps that `metrics.csv` holds, those of the run that was resumed included."""
    accuracy: float | None
    """Last avg@k on held-out prompts, mean over the tasks."""
    best: float | None
    """Largest avg@k, mean over the tasks."""
    best_step: int | None
    """Step of the largest avg@k."""
    seed: int | None
    """Seed of the run."""
    method: str
    """Filter, weighter and objective, by class name; those of plain OPD are left out."""

    @classmethod
    def of(cls, folder: Path) -> "RunStatus":
        """Read the status of a run; a missing or incomplete file gives missing values."""
        curves = read_metrics(folder / "metrics.csv")
        accuracies, settings = accuracy_curve(curves), read_settings(folder)
        steps = max(curves.get("train/loss", {}), default=-1) + 1
        best = max(accuracies, key=lambda step: accuracies[step], default=None)
        state: State = "stopped" if steps else "not started"
        if is_locked(folder):
            state = "running"
        elif (folder / "summary.json").exists():
            state = "finished"
        seed = settings.get("seed_everything")
        return cls(
            folder=folder,
            state=state,
            steps=steps,
            accuracy=accuracies[max(accuracies)] if accuracies else None,
            best=None if best is None else accuracies[best],
            best_step=best,
            seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
            method=_method(settings),
        )


def find_runs(root: Path) -> list[RunStatus]:
    """Return the status of all runs at any depth of a folder, by path; those of one folder by number."""
    parents = sorted({path.parent for path in (*root.glob("version_*"), *root.rglob("version_*"))})
    own = [root] if (root / CONFIG).exists() else []
    return [RunStatus.of(folder) for folder in (*own, *(run for parent in parents for run in _runs(parent)))]


def _runs(parent: Path) -> Iterator[Path]:
    """Yield the folders of runs; loggers have folders of such names, too."""
    yield from (folder for folder in run_folders(parent) if (folder / CONFIG).exists())


def accuracy_curve(curves: Mapping[str, Curve]) -> Curve:
    """Return avg@k on held-out prompts, mean over the tasks, at the steps at which every task has one."""
    tasks = [curve for name, curve in curves.items() if METRIC.fullmatch(name)]
    steps = sorted(set.intersection(*map(set, tasks))) if tasks else []
    means = {step: fmean(curve[step] for curve in tasks) for step in steps}
    return {step: mean for step, mean in means.items() if math.isfinite(mean)}


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a run; none if they cannot be read."""
    try:
        settings = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _method(settings: Mapping[str, Any]) -> str:
    model = settings.get("model")
    parts: Sequence[Any] = [model.get(name) for name in STRATEGIES] if isinstance(model, dict) else ()
    paths = [part.get("class_path") if isinstance(part, dict) else part for part in parts]
    names = [path.rpartition(".")[2] for path in paths if isinstance(path, str)]
    return ", ".join(name for name in names if name not in ("KeepAll", "UniformWeighter", "ReverseKL")) or (
        "plain OPD" if names else ""
    )
