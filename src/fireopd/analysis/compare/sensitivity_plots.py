"""Plots of accuracy over one or two varied settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fireopd.analysis.compare.bed_plots import SMALLEST_SCALE
from fireopd.analysis.compare.condition_results import Outcome
from fireopd.analysis.compare.conditions import Condition
from fireopd.analysis.compare.plots import Plot, heatmap, legend, line_styles, panels

__all__ = ["sensitivity_curves", "sensitivity_maps"]

Outcomes = Mapping[tuple[str, str], Outcome]
INTERVALS = "Bars: 95 % intervals that hold together; none with a single seed."


def sensitivity_curves(found: Outcomes, conditions: Sequence[Condition], reference: str) -> Plot:
    """Plot accuracy, and difference to the reference, over the values of one setting.

    Args:
        found: final accuracies by condition and method.
        conditions: conditions in the order of the values.
        reference: name of the reference.
    """
    (key,) = conditions[0].values
    places, labels = _axis([condition.values[key] for condition in conditions])
    methods = list(dict.fromkeys(method for _, method in found))
    with panels(1, 2, width=5.6, height=3.4, entries=len(methods)) as (figure, axes):
        for number, (method, style) in enumerate(line_styles(methods).items()):
            own = [found.get((condition.name, method)) for condition in conditions]
            means = [(o.mean, o.half_width) if o else None for o in own]
            across = _apart(places, number - (len(methods) - 1) / 2)
            _line(axes[0, 0], across, means, method, style)
            differences = [
                (o.difference.mean, None if o.difference.high is None else o.difference.high - o.difference.mean)
                if o and o.difference
                else None
                for o in own
            ]
            if any(differences):
                _line(axes[0, 1], across, differences, method, style)
        axes[0, 1].axhline(0, color="#808080", linewidth=1)
        for axis, title in zip(axes[0], ("final avg@k", f"difference to {reference}"), strict=True):
            axis.set_title(title)
            axis.set_xlabel(key)
            axis.set_xticks(places, labels)
        legend(figure, axes[0, 0])
    caption = f"Means over seeds. {INTERVALS}"
    return Plot("sensitivity", f"Accuracy over {key}", caption, figure)


def sensitivity_maps(found: Outcomes, conditions: Sequence[Condition], reference: str) -> Plot:
    """Plot two heat maps for each method over two settings: accuracy, and difference to the reference."""
    first, second = conditions[0].values
    rows, columns = (_distinct([condition.values[key] for condition in conditions]) for key in (first, second))
    methods = list(dict.fromkeys(method for _, method in found))
    height, width = 1.2 + 0.42 * len(rows), 2.2 + 0.85 * len(columns)
    with panels(len(methods), 2, width=width, height=height) as (figure, axes):
        for method, (left, right) in zip(methods, axes, strict=True):
            accuracy, change = (np.full((len(rows), len(columns)), np.nan) for _ in range(2))
            texts = [[["" for _ in columns] for _ in rows] for _ in range(2)]
            for condition in conditions:
                outcome = found.get((condition.name, method))
                if outcome:
                    place = rows.index(_text(condition.values[first])), columns.index(_text(condition.values[second]))
                    accuracy[place] = outcome.mean
                    texts[0][place[0]][place[1]] = _with_half(f"{outcome.mean:.2f}", outcome.half_width)
                    if outcome.difference:
                        change[place] = outcome.difference.mean
                        texts[1][place[0]][place[1]] = f"{outcome.difference.mean:+.2f}{outcome.mark}"
            heatmap(left, rows, columns, accuracy, (0, 1), texts[0])
            left.set_title(f"{method}: final avg@k")
            if np.isnan(change).all():
                right.set_visible(False)
                continue
            scale = max(SMALLEST_SCALE, float(np.nanmax(np.abs(change))))
            heatmap(right, rows, columns, change, (-scale, scale), texts[1])
            right.set_title(f"{method}: difference to {reference}")
        for axis in axes.flat:
            axis.set_ylabel(first)
            axis.set_xlabel(second)
    caption = (
        "Means over seeds ± half the length of the interval; all intervals hold together. ▲ and ▼: the interval of the"
        " difference excludes 0. △ and ▽: only that of this difference by itself does."
    )
    return Plot("sensitivity", f"Accuracy over {first} and {second}", caption, figure)


def _line(
    axis: Axes, places: Sequence[float], values: Sequence[tuple[float, float | None] | None], name: str, style: Any
) -> None:
    """Draw means with error bars; missing values are left out."""
    known = [(place, *value) for place, value in zip(places, values, strict=True) if value]
    if known:
        across, up, halves = zip(*known, strict=True)
        bars = [0.0 if half is None else half for half in halves]
        axis.errorbar(across, up, yerr=bars, label=name, marker="o", markersize=4, linewidth=1.4, capsize=2.5, **style)


def _axis(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Return positions and labels: numbers at their value, other settings at equal distances."""
    try:
        return [float(value) for value in values], [_text(value) for value in values]
    except (TypeError, ValueError):
        return [float(place) for place in range(len(values))], [_text(value) for value in values]


def _apart(places: Sequence[float], steps: float) -> list[float]:
    """Return positions moved by some hundredths of the axis, so that the bars of several methods can be told apart."""
    return [place + steps * 0.01 * (max(places) - min(places)) for place in places]


def _distinct(values: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(map(_text, values)))


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def _with_half(text: str, half: float | None) -> str:
    return text if half is None else f"{text}\n±{half:.2f}"
