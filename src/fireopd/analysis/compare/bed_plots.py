"""Plots of methods on test beds: matrix of differences, profiles by bed, accuracy and cost."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from fireopd.analysis.compare.condition_results import Cost, Outcome
from fireopd.analysis.compare.plots import Plot, heatmap, line_styles, panels
from fireopd.analysis.compare.run_results import Run

__all__ = ["accuracy_and_cost", "accuracy_before", "matrix", "profiles"]

SMALLEST_SCALE = 0.05
"""Smallest difference at the ends of the colour scale."""
PANELS = 3
"""Profiles in a row."""


def matrix(found: Mapping[tuple[str, str], Outcome], control: str) -> Plot:
    """Plot the differences to the control as a heat map of methods and beds."""
    compared = {place: outcome for place, outcome in found.items() if outcome.difference}
    beds = list(dict.fromkeys(bed for bed, _ in compared))
    methods = list(dict.fromkeys(method for _, method in compared))
    values, texts = np.full((len(methods), len(beds)), np.nan), [["" for _ in beds] for _ in methods]
    for (bed, method), outcome in compared.items():
        assert outcome.difference is not None
        row, column = methods.index(method), beds.index(bed)
        values[row, column] = outcome.difference.mean
        texts[row][column] = f"{outcome.difference.mean:+.2f}{outcome.mark}"
    scale = max(SMALLEST_SCALE, float(np.nanmax(np.abs(values))))
    with panels(1, 1, width=1.9 + 0.95 * len(beds), height=1.3 + 0.3 * len(methods)) as (figure, axes):
        heatmap(axes[0, 0], methods, [bed.replace("_", " ") for bed in beds], values, (-scale, scale), texts)
    caption = (
        f"Difference in final avg@k, mean over tasks and seeds. Blue: higher than {control}. Red: lower. ▲ and ▼: the"
        " simultaneous 95 % interval excludes 0. △ and ▽: only the interval of this difference by itself does."
    )
    return Plot("matrix", f"Differences to {control}", caption, figure)


def profiles(found: Mapping[tuple[str, str], Outcome], before: Mapping[str, float], control: str) -> Plot:
    """Plot the accuracy of all methods in one panel for each bed.

    Args:
        found: final accuracies by bed and method.
        before: accuracy of the student before training, by bed.
        control: name of the control.
    """
    beds = list(dict.fromkeys(bed for bed, _ in found))
    methods = list(dict.fromkeys(method for _, method in found))
    columns = min(PANELS, len(beds))
    rows = -(-len(beds) // columns)
    styles = line_styles(methods)
    with panels(rows, columns, width=3.9, height=0.75 + 0.2 * len(methods)) as (figure, axes):
        for axis, bed in zip(axes.flat, beds, strict=False):
            axis.axvline(before[bed], color="#808080", linewidth=1, linestyle=":")
            if (bed, control) in found:
                axis.axvline(found[bed, control].mean, color="#808080", linewidth=1)
            for height, method in enumerate(reversed(methods)):
                if (bed, method) in found:
                    own, colour = found[bed, method], styles[method]["color"]
                    values = list(own.values.values())
                    axis.plot(values, [height] * len(values), "|", color=colour, markersize=6, alpha=0.7)
                    axis.plot(own.mean, height, "o", color=colour, markersize=4.5)
            axis.set_title(bed.replace("_", " "))
            axis.set_yticks(range(len(methods)), list(reversed(methods)) if axis in axes[:, 0] else [""] * len(methods))
            axis.set_ylim(-0.6, len(methods) - 0.4)
            axis.grid(visible=False, axis="y")
        for axis in axes.flat[len(beds) :]:
            axis.set_visible(False)
    caption = f"Final avg@k. Dots: mean over seeds. Ticks: seeds. Solid line: {control}. Dotted line: before training."
    return Plot("profiles", "Profiles by bed", caption, figure)


def accuracy_and_cost(found: Mapping[tuple[str, str], Outcome], spent: Mapping[tuple[str, str], Cost]) -> Plot | None:
    """Plot mean accuracy over tokens and seconds, for methods with results on all beds; None without one."""
    beds = list(dict.fromkeys(bed for bed, _ in found))
    methods = list(dict.fromkeys(method for _, method in found))
    complete = [method for method in methods if all((bed, method) in found for bed in beds)]
    if not complete:
        return None
    styles = line_styles(methods)
    kinds = {"response tokens per run, thousands": lambda c: c.tokens / 1000, "seconds per run": lambda c: c.seconds}
    with panels(1, 2, width=5.6, height=3.6) as (figure, axes):
        for axis, (label, measure) in zip(axes[0], kinds.items(), strict=True):
            for method in complete:
                across = fmean([measure(spent[bed, method]) for bed in beds])
                up = fmean([found[bed, method].mean for bed in beds])
                axis.plot(across, up, "o", color=styles[method]["color"], markersize=5)
                axis.annotate(method, (across, up), xytext=(4, 3), textcoords="offset points", fontsize=7.5)
            axis.set_xlabel(label)
            axis.margins(x=0.25, y=0.12)
        axes[0, 0].set_ylabel("final avg@k")
    caption = "Means over all beds and seeds. Seconds depend on the load of the machine."
    return Plot("cost", "Accuracy and cost", caption, figure)


def accuracy_before(runs: Mapping[tuple[str, str], Sequence[Run]]) -> dict[str, float]:
    """Return the accuracy of the student before training, mean over tasks and runs, by bed."""
    found: dict[str, list[float]] = {}
    for (bed, _), own in runs.items():
        for run in own:
            curves = [run.curves[f"val/{task}/avg_at_k"] for task in run.tasks]
            found.setdefault(bed, []).append(fmean([curve[min(curve)] for curve in curves]))
    return {bed: fmean(values) for bed, values in found.items()}
