"""Charts of a run, one per group of metrics, readable without colours: each line has a dash pattern, too."""

from collections.abc import Mapping, Sequence
from itertools import cycle, takewhile
from typing import Any

from fireopd.analysis.compare.paired_differences import smoothed
from fireopd.analysis.compare.plots import COLOURS, Plot, panels
from fireopd.analysis.metrics_file import Curve

__all__ = ["chart", "short_names"]

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1)), (0, (3, 1)), (0, (1, 2.5)))
"""Dash patterns of the lines of a chart."""
SMOOTH = 11
"""Window of the running mean over training steps."""
LEGEND_COLUMNS = 3
"""Columns of a legend."""


def chart(title: str, curves: Mapping[str, Curve]) -> Plot:
    """Return the chart of some metrics over the optimizer steps.

    Args:
        title: title of the chart.
        curves: finite values by tag, at least one tag.
    """
    names = short_names(list(curves))
    with panels(1, 1, width=3.7, height=2.4) as (figure, axes):
        axis = axes[0, 0]
        for (tag, curve), colour, dash in zip(curves.items(), cycle(COLOURS), cycle(DASHES), strict=False):
            steps = sorted(curve)
            marker = "o" if tag.startswith("val/") or len(steps) == 1 else None
            line = curve if marker else smoothed(curve, SMOOTH)
            if marker is None:
                axis.plot(steps, [curve[step] for step in steps], color=colour, linewidth=0.7, alpha=0.3)
            axis.plot(
                steps,
                [line[step] for step in steps],
                label=names[tag],
                color=colour,
                linestyle=dash,
                linewidth=1.5,
                marker=marker,
                markersize=3.5,
            )
        axis.margins(x=0.02)
        if len(curves) > 1:
            figure.legend(loc="outside upper left", ncols=LEGEND_COLUMNS, handlelength=2.6, columnspacing=1.2)
        axis.set_xlabel("optimizer steps")
    ends = ", ".join(f"{names[tag]} {curve[max(curve)]:.3g}".strip() for tag, curve in curves.items())
    return Plot(title, title, f"At the end: {ends}.", figure)


def short_names(tags: Sequence[str]) -> dict[str, str]:
    """Return the parts of the tags that differ; `all` for the tag that is the beginning of the others."""
    parts = [tag.split("/") for tag in tags]
    if len(parts) == 1:
        return {tags[0]: ""}
    start = _common(parts)
    rest = [part[start:] for part in parts]
    end = _common([part[::-1] for part in rest])
    texts = ["/".join(part[: len(part) - end]).replace("_", " ") or "all" for part in rest]
    return dict(zip(tags, texts, strict=True))


def _common(parts: Sequence[Sequence[str]]) -> int:
    """Return the number of first parts that all have in common."""
    return len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))
