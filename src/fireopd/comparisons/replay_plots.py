"""Plots of what methods make of recorded rollouts: their weights, how alike they are, whom they favour."""

from collections.abc import Mapping, Sequence

import numpy as np

from fireopd.comparisons.gradients import Alignments
from fireopd.comparisons.plots import Plot, legend, look, matrix, panels
from fireopd.comparisons.replays import Agreement, Portrait

BINS = 60
"""Bins of the histogram of weights."""


def plots(portraits: Mapping[str, Portrait], alike: Sequence[Agreement], gradients: Alignments | None) -> list[Plot]:
    """Return all plots there are to draw."""
    made = [weights(portraits), groups(portraits)]
    if alike:
        made.insert(1, likeness(list(portraits), alike, gradients))
    if len(next(iter(portraits.values())).by_file) > 1:
        made.append(curves(portraits))
    return made


def histogram(portraits: Mapping[str, Portrait], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return counts [BINS] and edges [BINS + 1] of a method's weights; the edges are those of all methods."""
    highest = max(
        (portrait.weights.max().item() for portrait in portraits.values() if len(portrait.weights)), default=1.0
    )
    return np.histogram(portraits[name].weights.numpy(), bins=BINS, range=(0.0, max(highest, 1e-6) * 1.0001))


def weights(portraits: Mapping[str, Portrait]) -> Plot:
    """Draw the histograms of the weights."""
    with panels(1, 1, width=9.0, height=3.2) as (figure, axes):
        axis = axes[0, 0]
        for name, style in look(list(portraits)).items():
            counts, edges = histogram(portraits, name)
            axis.stairs(counts / max(1, counts.sum()), edges, label=name, linewidth=1.4, **style)
        axis.set_yscale("log")
        axis.set_xlabel("weight of a kept token")
        axis.set_ylabel("share of the kept tokens")
        legend(figure, axis, len(portraits))
    return Plot("weights", "Weights", "Weights after normalisation; the scale of shares is logarithmic.", figure)


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
            matrix(axis, names, table, title, lowest)
    caption = "1 on the diagonal: each with itself. Blank where it is undefined, as the ranks of equal weights are."
    return Plot("likeness", "How alike they are", caption, figure)


def groups(portraits: Mapping[str, Portrait]) -> Plot:
    """Draw what each method gives to each teacher's trajectories and to each range of lengths, against the tokens."""
    styles = look(list(portraits))
    first = next(iter(portraits.values()))
    with panels(1, 2, width=4.5, height=2.8) as (figure, axes):
        for axis, kind, names in zip(
            axes[0], ("by_teacher", "by_length"), (list(first.by_teacher), list(first.by_length)), strict=True
        ):
            width = 0.8 / len(portraits)
            for place, (name, portrait) in enumerate(portraits.items()):
                shares = portrait.by_teacher if kind == "by_teacher" else portrait.by_length
                ratios = [shares[n].weight / shares[n].tokens if shares[n].tokens else 0.0 for n in names]
                left = [spot - 0.4 + width * (place + 0.5) for spot in range(len(names))]
                axis.bar(left, ratios, width * 0.9, label=name, color=styles[name]["color"])
            axis.axhline(1, color="#808080", linewidth=1)
            axis.set_xticks(range(len(names)), names)
            axis.grid(visible=False, axis="x")
        axes[0, 0].set_title("by teacher")
        axes[0, 1].set_title("by length of the response, tokens")
        axes[0, 0].set_ylabel("share of weight / of tokens")
        legend(figure, axes[0, 0], len(portraits))
    caption = "Above 1: the group has more weight than its tokens alone would give it; dropped trajectories have none."
    return Plot("groups", "Whom they favour", caption, figure)


def curves(portraits: Mapping[str, Portrait]) -> Plot:
    """Draw keep ratio and effective share from file to file."""
    with panels(1, 2, width=4.5, height=2.6) as (figure, axes):
        for axis, key in zip(axes[0], ("keep_ratio", "effective_share"), strict=True):
            for name, style in look(list(portraits)).items():
                points = portraits[name].by_file
                steps = [point["policy_version"] for point in points]
                axis.plot(steps, [point[key] for point in points], label=name, marker="o", markersize=3, **style)
            axis.set_title(key.replace("_", " "))
            axis.set_xlabel("optimizer steps before the file was recorded")
        legend(figure, axes[0, 0], len(portraits))
    return Plot("curves", "From file to file", "Each point is one file, the global batch of a step.", figure)
