"""Plots of trained methods: learning curves, differences to the control, training curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from fireopd.analysis.compare.paired_differences import Result, band
from fireopd.analysis.compare.plots import Plot, legend, line_styles, panels
from fireopd.analysis.compare.run_results import Run

__all__ = ["plots"]

LEARNING = {
    "avg_at_k": "avg@k",
    "finished": "finished responses",
    "accuracy_given_finish": "accuracy given finish",
    "length": "tokens per response",
}
"""Validation metrics with a learning curve, and their labels."""
TRAINING = {
    "fire/keep_ratio": "kept trajectories",
    "fire/weight_ess": "effective share of tokens",
    "rollout/length": "tokens per response",
    "rollout/finished": "finished responses",
    "train/reverse_kl": "reverse KL, nats per token",
    "train/grad_norm": "gradient norm",
}
"""Plotted scalars of training steps, and their labels."""
SMOOTH = 11
"""Window of the running mean over training steps."""
FOREST = ("final", "peak", "finished", "accuracy_given_finish", "length")
"""Measures with a plot of differences."""


def plots(runs: Sequence[Run], found: Sequence[Result], control: str) -> list[Plot]:
    """Return all plots of finished runs."""
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run)
    made = [learning_curves(by_method)]
    if any(result.difference for result in found):
        made.append(forest(found, control))
    return [*made, training_curves(by_method)]


def learning_curves(runs: Mapping[str, Sequence[Run]]) -> Plot:
    """Plot validation metrics over optimizer steps."""
    tasks = sorted({task for own in runs.values() for run in own for task in run.tasks})
    with panels(len(tasks), len(LEARNING), entries=len(runs)) as (figure, axes):
        for row, task in enumerate(tasks):
            for column, (metric, label) in enumerate(LEARNING.items()):
                axis = axes[row, column]
                _curves(axis, runs, f"val/{task}/{metric}")
                axis.set_title(f"{task}: {label}")
        for axis in axes[-1]:
            axis.set_xlabel("optimizer steps")
        legend(figure, axes[0, 0])
    caption = "Held-out problems. Lines: mean over seeds. Bands: minimum to maximum over seeds."
    return Plot("learning_curves", "Learning curves", caption, figure)


def training_curves(runs: Mapping[str, Sequence[Run]]) -> Plot:
    """Plot scalars of the training steps."""
    with panels(2, 3, width=4.1, entries=len(runs)) as (figure, axes):
        for axis, (tag, label) in zip(axes.flat, TRAINING.items(), strict=True):
            _curves(axis, runs, tag, SMOOTH)
            axis.set_title(label)
        for axis in axes[-1]:
            axis.set_xlabel("optimizer steps")
        legend(figure, axes[0, 0])
    caption = f"Training batches, running mean over {SMOOTH} steps. Lines: mean over seeds. Bands: minimum to maximum."
    return Plot("training_curves", "Training curves", caption, figure)


def forest(found: Sequence[Result], control: str) -> Plot:
    """Plot the differences to the control with their intervals."""
    compared = [result for result in found if result.difference and result.measure in FOREST]
    tasks = list(dict.fromkeys(result.task for result in compared))
    methods = list(dict.fromkeys(result.method for result in compared))
    places = [(task, method) for task in tasks for method in methods]
    styles = line_styles([control, *methods])
    with panels(1, len(FOREST), width=2.5, height=0.9 + 0.26 * len(places)) as (figure, axes):
        for axis, measure in zip(axes[0], FOREST, strict=True):
            axis.axvline(0, color="#808080", linewidth=1)
            for result in (result for result in compared if result.measure == measure):
                height = len(places) - places.index((result.task, result.method))
                _interval(axis, result, height, styles[result.method]["color"])
            axis.set_title(measure.replace("_", " ") if measure != "final" else "final avg@k")
            axis.set_yticks(range(len(places), 0, -1), [""] * len(places))
            axis.set_ylim(0.3, len(places) + 0.7)
            axis.grid(visible=False, axis="y")
            for edge in range(1, len(tasks)):
                axis.axhline(len(places) - edge * len(methods) + 0.5, color="#808080", linewidth=0.5, alpha=0.5)
        axes[0, 0].set_yticks(range(len(places), 0, -1), [f"{task}:  {method}" for task, method in places])
        figure.supxlabel(f"difference to {control}, same seeds", fontsize=9)
    caption = (
        "Dots: mean paired difference over seeds. Lines: 95 % intervals; none with a single common seed. Ticks: seeds."
        " A line that crosses 0 shows no difference."
    )
    return Plot("differences", f"Differences to {control}, paired by seed", caption, figure)


def _curves(axis: Axes, runs: Mapping[str, Sequence[Run]], tag: str, width: int = 1) -> None:
    """Plot line and band of every method; a method without the tag still gets a legend entry."""
    for method, style in line_styles(list(runs)).items():
        found = band(runs[method], tag, width)
        if found is None:
            axis.plot([], [], label=method, **style)
            continue
        marker = "o" if tag.startswith("val/") else None
        axis.plot(found.steps, found.mean, label=method, marker=marker, markersize=3, linewidth=1.4, **style)
        axis.fill_between(found.steps, found.lowest, found.highest, color=style["color"], alpha=0.15, linewidth=0)


def _interval(axis: Axes, result: Result, height: float, colour: str) -> None:
    difference = result.difference
    assert difference is not None
    if difference.low is not None and difference.high is not None:
        axis.plot([difference.low, difference.high], [height, height], color=colour, linewidth=1.6)
    seeds = list(difference.values.values())
    axis.plot(seeds, [height] * len(seeds), "|", color=colour, markersize=6, markeredgewidth=0.8, alpha=0.7)
    axis.plot(difference.mean, height, "o", color=colour, markersize=4.5)
