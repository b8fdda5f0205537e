"""Tables of the results, for the terminal and in Markdown."""

from typing import Any

from rich.table import Table

COLUMNS = ("ratio", "median", "lowest to highest", "pairs", "CPU time ratio", "numerator", "denominator")
"""Columns of both tables."""


def terminal_table(results: dict[str, Any]) -> Table:
    """Return the ratios with the medians of their sides, and the reasons for skipped ones."""
    table = Table(title="medians of interleaved pairs")
    for column in COLUMNS:
        table.add_column(column, no_wrap=column == "ratio")
    for name, ratio in results["ratios"].items():
        table.add_row(name, *numbers(ratio), *(quantity(ratio[side]) for side in ("numerator", "denominator")))
    for name, reason in results["left_out"].items():
        table.add_row(name, "skipped", reason)
    return table


def markdown_table(results: dict[str, Any]) -> str:
    """Return the ratios with their sides, followed by the machine."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name, ratio in results["ratios"].items():
        sides = (f"{ratio[side]['what']} ({quantity(ratio[side])})" for side in ("numerator", "denominator"))
        lines.append(f"| {' | '.join((f'`{name}`', *numbers(ratio), *sides))} |")
    return "\n".join([*lines, "", machine_line(results)])


def numbers(ratio: dict[str, Any]) -> tuple[str, ...]:
    """Return median, extremes, number of pairs and, if known, the median ratio of CPU seconds as cells."""
    processor = ratio.get("details", {}).get("of_processor_seconds")
    extremes = f"{ratio['min']:.3g} to {ratio['max']:.3g}"
    return (
        f"{ratio['median']:.3g}",
        extremes,
        str(len(ratio["each"])),
        f"{processor['median']:.3g}" if processor else "",
    )


def quantity(side: dict[str, Any]) -> str:
    """Return the median of a side with its unit; bytes as GB, times below 1 s as ms."""
    value, unit = side["median"], side["unit"]
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    if unit.startswith("s") and value < 1:
        return f"{1000 * value:.3g} m{unit}"
    return f"{value:.3g} {unit}"


def machine_line(results: dict[str, Any]) -> str:
    """Return one line about the machine."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    place = machine["accelerator"] or machine["processor"]
    load = f"load {machine['load_before']:.1f} before and {machine.get('load_after', 0):.1f} after"
    return f"{place}, {machine['cores']} cores, {settings['threads']} thread(s), {load}; {versions}."
