"""Plots of methods on recorded rollouts: token weights, similarity, weight by group of trajectories."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fireopd.analysis.compare.gradients import Alignments
from fireopd.analysis.compare.method_statistics import Agreement, GroupShare, MethodStatistics
from fireopd.analysis.compare.plots import COLOURS, Plot, heatmap, legend, line_styles, panels

__all__ = ["histogram", "plots"]

BINS = 40
"""Bins of a histogram of weights."""
SMALLEST = 0.05
"""Lower end of the histogram."""
COLUMNS = 4
"""Histograms in a row."""


def plots(
    statistics: Mapping[str, MethodStatistics], agreements: Sequence[Agreement], gradients: Alignments | None
) -> list[Plot]:
    """Return all plots of methods on recorded rollouts."""
    made = [weights(statistics), groups(statistics)]
    if agreements:
        made.insert(1, similarity(list(statistics), agreements, gradients))
    if len(next(iter(statistics.values())).by_file) > 1:
        made.append(curves(statistics))
    return made


def histogram(statistics: Mapping[str, MethodStatistics], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return counts [BINS] and edges [BINS + 1] of a method's weights.

    All methods share the edges, which are spaced logarithmically. The first bin includes all weights below SMALLEST.
    """
    highest = max((float(p.weights.max()) for p in statistics.values() if len(p.weights)), default=1.0)
    edges = np.geomspace(SMALLEST, max(highest, 2.0) * 1.01, BINS + 1)
    return np.histogram(statistics[name].weights.clamp(min=SMALLEST * 1.001).numpy(), bins=edges)


def weights(statistics: Mapping[str, MethodStatistics]) -> Plot:
    """Plot a histogram of the weights of each method."""
    columns = min(COLUMNS, len(statistics))
    rows = math.ceil(len(statistics) / columns)
    with panels(rows, columns, width=12.0 / columns, height=1.9) as (figure, axes):
        for axis in axes.flat[len(statistics) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, statistics, strict=False):
            counts, edges = histogram(statistics, name)
            axis.stairs(counts / max(1, counts.sum()), edges, fill=True, color=COLOURS[0])
            axis.set_xscale("log")
            axis.set_ylim(bottom=0)
            axis.set_title(name)
        for axis in axes[-1]:
            axis.set_xlabel("weight of a kept token")
        for axis in axes[:, 0]:
            axis.set_ylabel("share of tokens")
    caption = f"Normalised weights on a logarithmic scale; weights below {SMALLEST} are in the leftmost bin."
    return Plot("weights", "Token weights", caption, figure)


def similarity(names: Sequence[str], agreements: Sequence[Agreement], gradients: Alignments | None) -> Plot:
    """Plot the matrices of keep overlap, rank correlation and gradient cosine."""
    found: dict[str, tuple[float, dict[tuple[str, str], float | None]]] = {}
    found["keep overlap"] = (0.0, {(pair.first, pair.second): pair.keep_overlap for pair in agreements})
    found["rank correlation of weights"] = (
        -1.0,
        {(pair.first, pair.second): pair.rank_correlation for pair in agreements},
    )
    if gradients:
        found["gradient cosine"] = (-1.0, {(pair.first, pair.second): pair.cosine for pair in gradients.pairs})
    size = 1.6 + 0.42 * len(names)
    with panels(1, len(found), width=size + 0.6, height=size) as (figure, axes):
        for axis, (title, (lowest, values)) in zip(axes[0], found.items(), strict=True):
            table = np.eye(len(names))
            for (first, second), value in values.items():
                row, column = names.index(first), names.index(second)
                table[row, column] = table[column, row] = np.nan if value is None else value
            heatmap(axis, names, names, table, (lowest, 1.0))
            axis.set_title(title)
    caption = (
        "Pairwise similarity; the diagonal is 1. Blank: undefined, for example the rank correlation of equal weights."
    )
    return Plot("similarity", "Similarity of methods", caption, figure)


def groups(statistics: Mapping[str, MethodStatistics]) -> Plot:
    """Plot the weight share over the token share, by teacher and by response length."""
    first = next(iter(statistics.values()))
    sizes = [len(first.by_teacher), len(first.by_length)]
    with panels(1, 2, width=1.6 + 0.75 * max(sizes), height=1.3 + 0.3 * len(statistics)) as (figure, axes):
        by_teacher = [found.by_teacher for found in statistics.values()]
        by_length = [found.by_length for found in statistics.values()]
        for axis, title, shares in zip(
            axes[0], ("teacher", "response length, tokens"), (by_teacher, by_length), strict=True
        ):
            ratios = np.array([[_ratio(share) for share in groups.values()] for groups in shares])
            heatmap(axis, list(statistics), list(shares[0]), ratios, (0.0, 2.0))
            axis.set_title(f"by {title}")
    caption = (
        "Share of the total weight divided by the share of response tokens. Values above 1 (blue): the group gets more"
        " weight than with uniform weights. Dropped trajectories have weight 0."
    )
    return Plot("groups", "Weight by teacher and response length", caption, figure)


def curves(statistics: Mapping[str, MethodStatistics]) -> Plot:
    """Plot keep ratio and effective share over the files."""
    with panels(1, 2, width=4.5, height=2.6, entries=len(statistics)) as (figure, axes):
        for axis, key in zip(axes[0], ("keep_ratio", "effective_share"), strict=True):
            for name, style in line_styles(list(statistics)).items():
                points = statistics[name].by_file
                steps = [point["policy_version"] for point in points]
                axis.plot(steps, [point[key] for point in points], label=name, marker="o", markersize=3, **style)
            axis.set_title(key.replace("_", " "))
            axis.set_xlabel("optimizer steps at the time of recording")
        legend(figure, axes[0, 0])
    return Plot("curves", "Statistics by file", "Each point is one file: the global batch of one step.", figure)


def _ratio(share: GroupShare) -> float:
    return share.weight / share.tokens if share.tokens else math.nan
