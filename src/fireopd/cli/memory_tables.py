"""Tables of a plan: memory by phase and part, host memory and disk, seconds of a step."""

from collections.abc import Sequence

from rich.table import Table

from fireopd.training.host_memory import host_parts
from fireopd.training.memory_phases import GIB, UNKNOWN, Phase, checkpoint_bytes, largest
from fireopd.training.run_plan import RunPlan
from fireopd.training.step_seconds import StepPart

__all__ = ["host_lines", "memory_table", "peak_lines", "seconds_table", "shown_size"]

KEPT = 2
"""Checkpoints on the disk besides the one that is being written: the last and the best one."""


MIB = 2**20
"""Bytes of a MiB."""


def shown_size(size: int) -> str:
    """Return a size as text: GiB with two digits after the point, MiB below 0.1 GiB."""
    if size >= GIB / 10:
        return f"{size / GIB:.2f} GiB"
    return f"{size / MIB:.1f} MiB" if size >= MIB / 10 or not size else "< 0.1 MiB"


def memory_table(phases: Sequence[Phase], limit: int, title: str) -> Table:
    """Return the memory of each part in each phase, the highest total marked."""
    top = largest(list(phases))
    result = Table(title=title, caption=f"of {limit / GIB:.1f} GiB; * highest")
    result.add_column("part, GiB")
    for phase in phases:
        result.add_column(phase.name, justify="right")
    names = dict.fromkeys(part.name for phase in phases for part in phase.parts)
    for name in names:
        sizes = [sum(part.size for part in phase.parts if part.name == name) for phase in phases]
        result.add_row(name, *(_cell(size) if size else "" for size in sizes))
    result.add_section()
    result.add_row("total", *(f"{_cell(phase.total)}{' *' if phase is top else ''}" for phase in phases))
    return result


def _cell(size: int) -> str:
    """Return a size without its unit, GiB, in a table of GiB."""
    return shown_size(size).removesuffix(" GiB")


def peak_lines(phase: Phase) -> list[str]:
    """Return where the peak is, and how its parts are computed."""
    moment = f", {phase.moment}" if phase.moment else ""
    lines = [f"Highest: {phase.name}{moment}, {shown_size(phase.total)}."]
    lines += [f"  {part.name}: {shown_size(part.size)} = {part.formula}" for part in phase.parts if part.size]
    return lines + [f"  {part.name}: {part.formula}" for part in phase.parts if part.formula.startswith(UNKNOWN)]


def host_lines(plan: RunPlan) -> list[str]:
    """Return host memory of a machine and disk space."""
    parts, size = host_parts(plan), checkpoint_bytes(plan)
    shown = "; ".join(f"{part.name} {part.size / GIB:.0f} ({part.formula})" for part in parts)
    total = sum(part.size for part in parts)
    return [
        f"Host memory of a machine: {total / GIB:.0f} GiB: {shown}",
        f"Disk: {shown_size(size)} a checkpoint; {shown_size((KEPT + 1) * size)} with last, best and a new one",
    ]


def seconds_table(parts: Sequence[StepPart], title: str) -> Table:
    """Return the seconds of each part of a step."""
    result = Table(title=title)
    for column in ("part of a step", "seconds", "computed from"):
        result.add_column(column, justify="right" if column == "seconds" else "left")
    for part in parts:
        result.add_row(part.name, f"{part.seconds:.1f}", part.formula)
    result.add_section()
    result.add_row("total", f"{sum(part.seconds for part in parts):.1f}", "")
    return result
