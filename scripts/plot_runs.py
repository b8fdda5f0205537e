"""Draw accuracy and reverse KL of some runs: `python scripts/plot_runs.py OUT.png NAME=FOLDER[,FOLDER...] ...`.

Each NAME is a line, the mean over its run folders (seeds), with the range between the lowest and the highest as a band.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PANELS = {
    "val/math/avg_at_k": "math: held-out avg@4",
    "val/code/avg_at_k": "code: held-out avg@4",
    "kl/math": "math: reverse KL to its teacher, nats a token",
    "kl/code": "code: reverse KL to its teacher, nats a token",
}


def series(folder: Path, tag: str) -> dict[int, float]:
    """Return the values of a tag by step."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return the running mean over up to `width` steps, shorter at the ends."""
    kernel = np.ones(min(width, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def main() -> None:
    """Draw the picture."""
    out, *arguments = sys.argv[1:]
    runs = {name: [Path(f) for f in folders.split(",")] for name, folders in (a.split("=") for a in arguments)}
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained")
    for (tag, title), axis in track(list(zip(PANELS.items(), axes.flat, strict=True)), description="Drawing"):
        for name, folders in runs.items():
            found = [series(folder, tag) for folder in folders]
            steps = sorted(set.intersection(*(set(values) for values in found)))
            table = np.array([[values[step] for step in steps] for values in found])
            if tag.startswith("kl"):
                table = np.array([smooth(row, 11) for row in table])
            axis.plot(steps, table.mean(0), marker="o" if tag.startswith("val") else None, label=name)
            axis.fill_between(steps, table.min(0), table.max(0), alpha=0.2)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0, top=1 if tag.startswith("val") else None)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    for axis in axes[1]:
        axis.set_xlabel("optimizer steps")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
