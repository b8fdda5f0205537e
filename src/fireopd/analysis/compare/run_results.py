"""What a run has left in its folder: its state, its curves, and the numbers that are compared.

A run that was interrupted and went on lies in several folders, `version_0`, `version_1` and so on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.errors import UserError
from fireopd.training.checkpoints import last_checkpoint

Curve = dict[int, float]
"""Values by optimizer step."""

MEASURES = {
    "final": "avg@k at the end",
    "peak": "highest avg@k of any validation",
    "finished": "share of responses that come to an end",
    "accuracy_given_finish": "accuracy of those that do",
    "length": "tokens a held-out response",
    "training_length": "tokens a response in training, mean over the run",
    "seconds": "seconds of the run",
}
"""What is compared, and what it means. All but the last two are of held-out problems, for each task and as a mean."""
OF_RUNS = ("training_length", "seconds")
"""Measures that a run has once."""
OVERALL = "all tasks"
"""Stands where a task would: the mean over the tasks' values, or the run as a whole."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    method: str
    """Name of the method."""
    seed: int
    """Seed of the run."""
    folder: Path
    """Where it lies."""
    seconds: float
    """What it took, those of interrupted parts included."""
    curves: Mapping[str, Curve]
    """Scalars by TensorBoard tag."""

    @property
    def tasks(self) -> list[str]:
        """The tasks that it was validated on."""
        tags = [tag.split("/") for tag in self.curves]
        return sorted(parts[1] for parts in tags if (parts[0], parts[2:]) == ("val", ["avg_at_k"]))

    def measures(self) -> dict[tuple[str, str], float]:
        """Return the numbers that are compared, by task and name of the measure; one that is undefined is left out."""
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


def versions(folder: Path) -> list[Path]:
    """Return the folders of the parts of a run, in the order in which they were begun."""
    return sorted(folder.glob("version_*"), key=lambda path: int(path.name.removeprefix("version_")))


def is_finished(folder: Path) -> bool:
    """Return whether the run has come to its end: its last part holds a summary."""
    parts = versions(folder)
    return bool(parts) and (parts[-1] / "summary.json").exists()


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run that was interrupted can go on."""
    try:
        last_checkpoint(folder)
    except UserError:
        return False
    return True


def read_run(method: str, seed: int, folder: Path) -> Run:
    """Read a finished run."""
    summary = json.loads((versions(folder)[-1] / "summary.json").read_text())
    return Run(method, seed, folder, summary["seconds"], read_curves(folder))


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return the scalars of a run by tag; from where a later part begins, it takes the place of the earlier ones."""
    curves: dict[str, Curve] = {}
    for part in versions(folder):
        events = EventAccumulator(str(part), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            new = {event.step: event.value for event in events.Scalars(tag)}
            old = curves.get(tag, {})
            curves[tag] = {step: value for step, value in old.items() if step < min(new)} | new
    return curves
