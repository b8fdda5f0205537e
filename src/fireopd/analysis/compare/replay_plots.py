"""Plots of what methods make of recorded rollouts: their weights, how alike they are, whom they favour."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fireopd.analysis.compare.gradients import Alignments
from fireopd.analysis.compare.plots import COLOURS, Plot, legend, look, matrix, panels
from fireopd.analysis.compare.replays import Agreement, Portrait, Share

BINS = 40
"""Bins of the histogram of weights."""
SMALLEST = 0.05
"""Weight at which the histogram begins."""
COLUMNS = 4
"""Histograms side by side."""


def plots(portraits: Mapping[str, Portrait], alike: Sequence[Agreement], gradients: Alignments | None) -> list[Plot]:
    """Return all plots there are to draw."""
    made = [weights(portraits), groups(portraits)]
    if alike:
        made.insert(1, likeness(list(portraits), alike, gradients))
    if len(next(iter(portraits.values())).by_file) > 1:
        made.append(curves(portraits))
    return made


def histogram(portraits: Mapping[str, Portrait], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return counts [BINS] and edges [BINS + 1] of a method's weights; the first bin holds all below SMALLEST too.

    The edges are those of all methods, at equal ratios: a weight of 2 is as far from 1 as one of 1/2.
    """
    highest = max((float(p.weights.max()) for p in portraits.values() if len(p.weights)), default=1.0)
    edges = np.geomspace(SMALLEST, max(highest, 2.0) * 1.01, BINS + 1)
    return np.histogram(portraits[name].weights.clamp(min=SMALLEST * 1.001).numpy(), bins=edges)


def weights(portraits: Mapping[str, Portrait]) -> Plot:
    """Draw the histogram of each method's weights."""
    columns = min(COLUMNS, len(portraits))
    rows = math.ceil(len(portraits) / columns)
    with panels(rows, columns, width=12.0 / columns, height=1.9) as (figure, axes):
        for axis in axes.flat[len(portraits) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, portraits, strict=False):
            counts, edges = histogram(portraits, name)
            axis.stairs(counts / max(1, counts.sum()), edges, fill=True, color=COLOURS[0])
            axis.set_xscale("log")
            axis.set_ylim(bottom=0)
            axis.set_title(name)
        for axis in axes[-1]:
            axis.set_xlabel("weight of a kept token")
        for axis in axes[:, 0]:
            axis.set_ylabel("share of tokens")
    caption = f"After normalisation, on a logarithmic scale; weights below {SMALLEST} stand at its left end."
    return Plot("weights", "Weights", caption, figure)


def likeness(names: Sequence[str], alike: Sequence[Agreement], gradients: Alignments | None) -> Plot:
    """Draw the matrices of keep overlap, rank correlation and gradient cosine."""
    found: dict[str, tuple[float, dict[tuple[str, str], float | None]]] = {}
    found["keep overlap"] = (0.0, {(of.first, of.second): of.keep_overlap for of in alike})
    found["rank correlation of weights"] = (-1.0, {(of.first, of.second): of.rank_correlation for of in alike})
    if gradients:
        found["gradient cosine"] = (-1.0, {(pair.first, pair.second): pair.cosine for pair in gradients.pairs})
    size = 1.6 + 0.42 * len(names)
    with panels(1, len(found), width=size + 0.6, height=size) as (figure, axes):
        for axis, (title, (lowest, values)) in zip(axes[0], found.items(), strict=True):
            table = np.eye(len(names))
            for (first, second), value in values.items():
                row, column = names.index(first), names.index(second)
                table[row, column] = table[column, row] = np.nan if value is None else value
            matrix(axis, names, names, table, (lowest, 1.0))
            axis.set_title(title)
    caption = "1 on the diagonal: each with itself. Blank where it is undefined, as the ranks of equal weights are."
    return Plot("likeness", "How alike they are", caption, figure)


def groups(portraits: Mapping[str, Portrait]) -> Plot:
    """Draw what each method gives to each teacher's trajectories and to each range of lengths, against the tokens."""
    first = next(iter(portraits.values()))
    sizes = [len(first.by_teacher), len(first.by_length)]
    with panels(1, 2, width=1.6 + 0.75 * max(sizes), height=1.3 + 0.3 * len(portraits)) as (figure, axes):
        by_teacher = [portrait.by_teacher for portrait in portraits.values()]
        by_length = [portrait.by_length for portrait in portraits.values()]
        for axis, title, shares in zip(
            axes[0], ("teacher", "tokens of the response"), (by_teacher, by_length), strict=True
        ):
            ratios = np.array([[_ratio(of) for of in groups.values()] for groups in shares])
            matrix(axis, list(portraits), list(shares[0]), ratios, (0.0, 2.0))
            axis.set_title(f"by {title}")
    caption = (
        "Share of the weight over share of the tokens. Above 1 (blue) the group has more weight than its tokens alone"
    )
    return Plot("groups", "Whom they favour", f"{caption} would give it; dropped trajectories have none.", figure)


def curves(portraits: Mapping[str, Portrait]) -> Plot:
    """Draw keep ratio and effective share from file to file."""
    with panels(1, 2, width=4.5, height=2.6, entries=len(portraits)) as (figure, axes):
        for axis, key in zip(axes[0], ("keep_ratio", "effective_share"), strict=True):
            for name, style in look(list(portraits)).items():
                points = portraits[name].by_file
                steps = [point["policy_version"] for point in points]
                axis.plot(steps, [point[key] for point in points], label=name, marker="o", markersize=3, **style)
            axis.set_title(key.replace("_", " "))
            axis.set_xlabel("optimizer steps before the file was recorded")
        legend(figure, axes[0, 0])
    return Plot("curves", "From file to file", "Each point is one file, the global batch of a step.", figure)


def _ratio(share: Share) -> float:
    return share.weight / share.tokens if share.tokens else math.nan
