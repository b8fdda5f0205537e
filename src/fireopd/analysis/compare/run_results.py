"""Results in the folder of a run: state, curves and measures.

A run that was interrupted and resumed has several folders: `version_0`, `version_1` and so on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from fireopd.analysis.metrics_file import Curve, read_metrics
from fireopd.training.checkpoint_files import LAST, standing
from fireopd.training.run_layout import run_folders

__all__ = [
    "MEASURES",
    "OVERALL",
    "Curve",
    "Run",
    "has_checkpoint",
    "is_finished",
    "read_curves",
    "read_run",
]

MEASURES = {
    "final": "avg@k at the end",
    "peak": "highest avg@k over all validations",
    "finished": "fraction of responses that end before the length limit",
    "accuracy_given_finish": "accuracy of finished responses",
    "length": "tokens per response on held-out problems",
    "training_length": "tokens per response in training, mean over the run",
    "seconds": "duration of the run, seconds",
}
"""Measures with their meaning. All but the last two refer to held-out problems: by task, and as a mean over tasks."""
OF_RUNS = ("training_length", "seconds")
"""Measures of a run as a whole."""
OVERALL = "all tasks"
"""Name used in place of a task for means over tasks and measures of the run as a whole."""


@dataclass(frozen=True)
class Run:
    """Finished run."""

    method: str
    """Name of the method."""
    seed: int
    """Seed of the run."""
    folder: Path
    """Folder of the run."""
    seconds: float
    """Duration, including interrupted parts."""
    curves: Mapping[str, Curve]
    """Metrics by name."""

    @property
    def tasks(self) -> list[str]:
        """Tasks of the validation, sorted."""
        tags = [tag.split("/") for tag in self.curves]
        return sorted(parts[1] for parts in tags if (parts[0], parts[2:]) == ("val", ["avg_at_k"]))

    def measures(self) -> dict[tuple[str, str], float]:
        """Return the values by task and measure; undefined values are left out."""
        values = {(task, name): value for task in self.tasks for name, value in self._of_task(task).items()}
        for name in (name for name in MEASURES if name not in OF_RUNS):
            found = [values[task, name] for task in self.tasks if (task, name) in values]
            if found and len(found) == len(self.tasks):
                values[OVERALL, name] = fmean(found)
        if self.curves.get("rollout/length"):
            values[OVERALL, "training_length"] = fmean(list(self.curves["rollout/length"].values()))
        return values | {(OVERALL, "seconds"): self.seconds}

    def _of_task(self, task: str) -> dict[str, float]:
        accuracy = self.curves[f"val/{task}/avg_at_k"]
        end = max(accuracy)
        values = {"final": accuracy[end], "peak": max(accuracy.values())}
        for name in ("finished", "accuracy_given_finish", "length"):
            curve = self.curves.get(f"val/{task}/{name}", {})
            values |= {name: curve[end]} if end in curve else {}
        return values


def is_finished(folder: Path) -> bool:
    """Return True if the last part of the run has a summary."""
    parts = run_folders(folder)
    return bool(parts) and (parts[-1] / "summary.json").exists()


def has_checkpoint(folder: Path) -> bool:
    """Return True if an interrupted run has a checkpoint to resume from."""
    return any(standing(part / "checkpoints" / LAST).exists() for part in run_folders(folder))


def read_run(method: str, seed: int, folder: Path) -> Run:
    """Read a finished run."""
    summary = json.loads((run_folders(folder)[-1] / "summary.json").read_text())
    return Run(method, seed, folder, summary["seconds"], read_curves(folder))


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return the metrics of a run by name; from its first step on, a later part overrides earlier ones."""
    curves: dict[str, Curve] = {}
    for part in run_folders(folder):
        for name, new in read_metrics(part / "metrics.csv").items():
            old = curves.get(name, {})
            curves[name] = {step: value for step, value in old.items() if step < min(new)} | new
    return curves
