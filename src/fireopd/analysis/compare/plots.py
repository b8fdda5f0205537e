"""What the plots of a comparison have in common: colours, panels, and being written as PNG and into a page."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fireopd.atomic_files import replacing

INK = "#1d2733"
"""Colour of text and axes; in a page it becomes that of the page's text."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Those of Okabe and Ito, which colour-blind people can tell apart, without the yellow, and two more."""
LINES = ("-", "--", ":")
"""Line styles of methods for which there is no colour left."""
LEGEND_COLUMNS = 6
"""Entries of a legend that stand side by side."""
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
    """A figure with what it is called and how it is read."""

    name: str
    """Name of its file, without the ending."""
    title: str
    """What it shows."""
    caption: str
    """How to read it."""
    figure: Figure
    """The drawing."""

    def write_png(self, folder: Path) -> None:
        """Write `<name>.png`."""
        with replacing(folder / f"{self.name}.png") as partial:
            self.figure.savefig(partial, format="png", dpi=150, facecolor="white", bbox_inches="tight")

    def to_svg(self) -> str:
        """Return an SVG element for a page: transparent, in the page's ink, without any reference to the outside."""
        buffer = io.StringIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight")
        svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
        svg = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", svg[svg.index("<svg") :])
        return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img">', svg).replace(INK, "currentColor")


@contextmanager
def panels(
    rows: int, columns: int, width: float = 3.1, height: float = 2.3, entries: int = 0
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Yield a figure and its [rows, columns] axes, in our style.

    Args:
        rows: of panels.
        columns: of panels.
        width: of a panel, inches.
        height: of a panel, inches.
        entries: of the legend above, for which there is to be room.
    """
    with mpl.rc_context(STYLE):
        room = 0.2 * math.ceil(entries / LEGEND_COLUMNS)
        figure = Figure(figsize=(width * columns, height * rows + room), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False)


def look(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how the lines of each method look."""
    pairs = [{"color": colour, "linestyle": line} for line in LINES for colour in COLOURS]
    return {method: pairs[place % len(pairs)] for place, method in enumerate(methods)}


def legend(figure: Figure, axis: Axes) -> None:
    """Put what the lines of an axis mean above all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), LEGEND_COLUMNS))


def matrix(
    axis: Axes, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, ends: tuple[float, float]
) -> None:
    """Draw [R, C] values as colours between two ends, each written into its cell; NaN is left blank.

    Where the ends lie around a middle, below it is red and above it blue.
    """
    low, high = ends
    axis.imshow(values, cmap="Blues" if low == 0 and high == 1 else "RdBu", vmin=low, vmax=high, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.grid(visible=False)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            place = (value - low) / (high - low)
            dark = place > 0.75 or (place < 0.2 and (low, high) != (0, 1))
            colour = "white" if dark else "#222222"
            axis.text(column, row, f"{value:.2f}", color=colour, ha="center", va="center", fontsize=8)
