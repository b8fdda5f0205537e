"""Schedules: numeric settings that change with the optimizer step.

A schedule is plain data, the same in a configuration and in Python: `{from: 0.4, to: 0, steps: 100}`.
"""

import math
from dataclasses import fields
from typing import Any, Literal, NotRequired, TypedDict

__all__ = ["Schedule", "accept_schedules", "check_schedule", "last_step", "numeric_settings", "value_at"]

Schedule = TypedDict(
    "Schedule",
    {
        "from": float,  # value up to the first step
        "to": float,  # value from step start + steps on
        "steps": int,  # number of optimizer steps of the change, at least 1
        "start": NotRequired[int],  # optimizer step at which the change begins, 0 by default
        "shape": NotRequired[Literal["linear", "cosine"]],  # linear by default
    },
)
"""Change of a number: `from` up to step `start`, then linear or along half a cosine wave, `to` after `steps` steps."""

SCHEDULABLE: dict[Any, Any] = {
    float: float | Schedule,
    int: int | Schedule,
    float | None: float | Schedule | None,
    int | None: int | Schedule | None,
}
"""Type of a setting in a configuration by the type that its class declares."""
SCHEDULABLE |= {"float": SCHEDULABLE[float], "int": SCHEDULABLE[int]}  # annotations as text
SCHEDULABLE |= {f"{name} | None": SCHEDULABLE[kind | None] for name, kind in (("float", float), ("int", int))}


def accept_schedules(kind: type) -> None:
    """Widen the types of the numeric settings that a class declares, before `dataclass` reads them."""
    annotations = vars(kind).get("__annotations__", {})
    annotations |= {name: SCHEDULABLE[own] for name, own in annotations.items() if _hashable(own) in SCHEDULABLE}


def numeric_settings(kind: type) -> dict[str, type]:
    """Return the settings of a dataclass that accept a schedule, each with its type: float or int."""
    numbers = {SCHEDULABLE[own]: own for own in (float, int)}
    numbers |= {SCHEDULABLE[own | None]: own for own in (float, int)}
    return {f.name: numbers[f.type] for f in fields(kind) if f.init and _hashable(f.type) in numbers}


def check_schedule(name: str, schedule: Schedule) -> None:
    """Raise `ValueError` unless the numbers of the schedule of a setting are finite and its steps are in range."""
    for key in ("from", "to"):
        if not math.isfinite(schedule[key]):
            raise ValueError(f"{name} must change between finite numbers, got {dict(schedule)}")
    if schedule["steps"] < 1:
        raise ValueError(f"{name} must change in at least 1 step, got {dict(schedule)}")
    if schedule.get("start", 0) < 0:
        raise ValueError(f"{name} must start to change at step 0 or later, got {dict(schedule)}")


def last_step(schedule: Schedule) -> int:
    """Return the optimizer step from which on the value is `to`."""
    return schedule.get("start", 0) + schedule["steps"]


def value_at(schedule: Schedule, step: int) -> float:
    """Return the value at an optimizer step, between `from` and `to`; exactly these at the ends."""
    first, last = schedule["from"], schedule["to"]
    progress = (step - schedule.get("start", 0)) / schedule["steps"]
    if progress <= 0 or progress >= 1:
        return first if progress <= 0 else last
    if schedule.get("shape", "linear") == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return min(max(first + (last - first) * progress, min(first, last)), max(first, last))


def _hashable(annotation: Any) -> Any:
    """Return an annotation if it can be a key; some, such as `Annotated` with a list, cannot."""
    try:
        hash(annotation)
    except TypeError:
        return None
    return annotation
