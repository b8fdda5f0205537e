"""Tables of the results: for the terminal, and for a Markdown page."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

COLUMNS = ("ratio", "median", "lowest", "highest", "pairs", "above the line", "below the line")
"""Of both tables."""


def terminal_table(results: dict[str, Any]) -> Table:
    """Return the ratios, and why others are left out."""
    table = Table(*COLUMNS, title="medians of pairs that were measured in turns")
    for row in rows(results):
        table.add_row(*row)
    for name, reason in results["left_out"].items():
        table.add_row(name, "left out", "", "", "", reason, "")
    return table


def markdown_table(results: dict[str, Any]) -> str:
    """Return the ratios, the machine below them."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name, *others in rows(results):
        lines.append(f"| {' | '.join((f'`{name}`', *others))} |")
    return "\n".join([*lines, "", machine_line(results)])


def rows(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each ratio."""
    for name, ratio in results["ratios"].items():
        numbers = [f"{ratio[key]:.3g}" for key in ("median", "min", "max")]
        sides = [side_cell(ratio[side]) for side in ("numerator", "denominator")]
        yield name, *numbers, str(len(ratio["each"])), *sides


def side_cell(side: dict[str, Any]) -> str:
    """Return what a side of a ratio is, with its median: bytes as GB, short times as ms."""
    value, unit = side["median"], side["unit"]
    if unit == "bytes":
        return f"{side['what']} ({value / 1e9:.2f} GB)"
    if unit.startswith("s") and value < 1:
        return f"{side['what']} ({1000 * value:.3g} m{unit})"
    return f"{side['what']} ({value:.3g} {unit})"


def machine_line(results: dict[str, Any]) -> str:
    """Return a sentence about the machine."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    place = machine["accelerator"] or machine["processor"]
    load = f"load {machine['load_before']:.1f} before and {machine.get('load_after', 0):.1f} after"
    return f"{place}, {machine['cores']} cores, {settings['threads']} thread(s), {load}; {versions}."
