"""Common parts of the plots of a comparison: colours, panels, and output as PNG and SVG."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "Plot", "heatmap", "legend", "line_styles", "panels"]

INK = "#1d2733"
"""Colour of text and axes; a page replaces it by its own text colour."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Colour-blind safe palette of Okabe and Ito without yellow, and two more colours."""
LINES = ("-", "--", ":")
"""Line styles; each is combined with all colours before the next one is used."""
LEGEND_COLUMNS = 6
"""Columns of a legend."""
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": "#808080",
    "legend.frameon": False,
    "svg.hashsalt": "fireopd",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Plot:
    """Figure with file name, title and caption."""

    name: str
    """File name without suffix."""
    title: str
    """Title."""
    caption: str
    """Caption: how to read the plot."""
    figure: Figure
    """Matplotlib figure."""

    def write_png(self, folder: Path) -> None:
        """Write `<name>.png`."""
        file = folder / f"{self.name}.png"
        self.figure.savefig(file, format="png", dpi=150, facecolor="white", bbox_inches="tight")

    def to_svg(self) -> str:
        """Return a self-contained, transparent SVG element in the text colour of the page."""
        buffer = io.StringIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight")
        svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
        svg = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", svg[svg.index("<svg") :])
        label = escape(f"{self.title}. {self.caption}")
        start = re.compile(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>')
        svg = start.sub(lambda found: f'<svg {found[1]} role="img" aria-label="{label}">', svg)
        return svg.replace(INK, "currentColor")


@contextmanager
def panels(
    rows: int, columns: int, width: float = 3.1, height: float = 2.3, entries: int = 0
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Yield a styled figure and its [rows, columns] axes.

    Args:
        rows: rows of panels.
        columns: columns of panels.
        width: width of a panel, inches.
        height: height of a panel, inches.
        entries: entries of the legend above the panels, which the figure reserves space for.
    """
    with mpl.rc_context(STYLE):
        room = 0.2 * math.ceil(entries / LEGEND_COLUMNS)
        figure = Figure(figsize=(width * columns, height * rows + room), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False)


def line_styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour and line style of each method, as keyword arguments of `Axes.plot`."""
    pairs = [{"color": colour, "linestyle": line} for line in LINES for colour in COLOURS]
    return {method: pairs[place % len(pairs)] for place, method in enumerate(methods)}


def legend(figure: Figure, axis: Axes) -> None:
    """Add the legend of an axis above all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), LEGEND_COLUMNS))


def heatmap(
    axis: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    ends: tuple[float, float],
    texts: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draw [R, C] values as a heat map with a number in each cell; NaN is left blank.

    Args:
        axis: axis to draw on.
        rows: R labels.
        columns: C labels.
        values: float64 [R, C].
        ends: values at the ends of the colour map: blue from 0 to 1, otherwise red to blue.
        texts: [R][C] texts of the cells in place of the numbers.
    """
    low, high = ends
    colours = "Blues" if low == 0 and high == 1 else "RdBu"
    # Unlike an image, a mesh is vectors: the policy of a page allows no images.
    axis.pcolormesh(values, cmap=colours, vmin=low, vmax=high)
    axis.invert_yaxis()
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=35, ha="right")
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axis.grid(visible=False)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            place = (value - low) / (high - low)
            dark = place > 0.75 or (place < 0.2 and (low, high) != (0, 1))
            colour = "white" if dark else "#222222"
            text = f"{value:.2f}" if texts is None else texts[row][column]
            axis.text(column + 0.5, row + 0.5, text, color=colour, ha="center", va="center", fontsize=8)
