"""Figure of benchmark results: ratios, parts of a step, and scaling laws."""

import math
from typing import Any

from matplotlib.axes import Axes

from fireopd.analysis.compare.plots import COLOURS, Plot, panels

CAPTION = "Lines are least-squares fits with R^2; whiskers range from the lowest to the highest pair."
RATIOS = {
    "trl_over_fireopd": "TRL",
    "trl_over_fireopd_same_loss": "TRL, same loss",
    "naive_over_fireopd": "naive loop",
    "naive_whole_over_fireopd": "naive, one batch",
    "generate_over_hfengine_64": "generate, 64 rows",
    "generate_over_hfengine_256": "generate, 256 rows",
}
"""Labels of the ratios in the bar chart; fireopd is faster if the ratio is above 1."""
PARTS = ("rollout", "teacher", "student", "update", "sync", "other")


def performance(results: dict[str, Any]) -> Plot:
    """Return the figure of all results."""
    laws = list(results["scaling"].items())
    split = next(
        (r["details"]["parts_of_ours"] for r in results["ratios"].values() if "parts_of_ours" in r.get("details", {})),
        None,
    )
    ratios = {label: results["ratios"][name] for name, label in RATIOS.items() if name in results["ratios"]}
    number = len(laws) + bool(ratios) + bool(split)
    columns = min(3, max(1, number))
    with panels(max(1, math.ceil(number / columns)), columns, height=2.5) as (figure, axes):
        places = iter(axes.flat)
        if ratios:
            draw_ratios(next(places), ratios)
        if split:
            draw_split(next(places), split)
        for _, law in laws:
            draw_law(next(places), law)
        for axis in places:
            axis.set_visible(False)
    return Plot("performance", "Performance", CAPTION, figure)


def draw_ratios(axis: Axes, ratios: dict[str, dict[str, Any]]) -> None:
    """Draw a bar for each ratio, with its spread."""
    medians = [ratio["median"] for ratio in ratios.values()]
    below = [ratio["median"] - ratio["min"] for ratio in ratios.values()]
    above = [ratio["max"] - ratio["median"] for ratio in ratios.values()]
    axis.barh(range(len(ratios)), medians, xerr=(below, above), color=COLOURS[0], alpha=0.8, error_kw={"lw": 1})
    axis.set_yticks(range(len(ratios)), list(ratios))
    axis.invert_yaxis()
    axis.axvline(1, color="#808080", lw=1)
    axis.set_title("time relative to fireopd")


def draw_split(axis: Axes, split: dict[str, dict[str, float]]) -> None:
    """Draw the share of each part of a step."""
    shares = [split[name]["share"] for name in PARTS]
    axis.bar(range(len(PARTS)), shares, color=COLOURS[2], alpha=0.8)
    axis.set_xticks(range(len(PARTS)), list(PARTS), rotation=30)
    axis.set_title("share of a step, embedded job")


def draw_law(axis: Axes, law: dict[str, Any]) -> None:
    """Draw the seconds of scoring and update at each size, with fitted lines."""
    for name, colour in zip(("scoring", "update"), COLOURS, strict=False):
        fit, ends = law["lines"][name], (min(law["sizes"]), max(law["sizes"]))
        label = f"{name}, $R^2$ = {fit['r_squared']:.3f}" if len(law["sizes"]) > 2 else name
        axis.plot(law["sizes"], law["seconds"][name], "o", ms=4, color=colour, label=label)
        axis.plot(ends, [fit["slope"] * x + fit["intercept"] for x in ends], color=colour, lw=1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(law["what"])
    axis.set_ylabel("seconds")
    axis.legend(fontsize=7)
