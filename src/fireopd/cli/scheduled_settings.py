"""Construction of configured classes: a strategy with a schedule in the place of a number becomes a scheduled one."""

import re
from collections.abc import Mapping
from typing import Any, cast

import yaml

from fireopd.errors import UserError
from fireopd.filters import ScheduledFilter, TrajectoryFilter
from fireopd.objectives import Objective, ScheduledObjective
from fireopd.types.schedule import Schedule, check_schedule, numeric_settings, value_at
from fireopd.weighters import ScheduledWeighter, TokenWeighter

__all__ = ["construct", "looks_scheduled", "refused_schedule"]

SCHEDULED: dict[type, type] = {
    TrajectoryFilter: ScheduledFilter,
    TokenWeighter: ScheduledWeighter,
    Objective: ScheduledObjective,
}
"""Class of scheduled strategies by kind of strategy."""
FORM = "{from: 0.4, to: 0, steps: 100}, optionally with start: 50 and shape: cosine"
"""Example of a schedule, for messages."""


def construct(kind: type, /, *args: Any, **arguments: Any) -> Any:
    """Return an instance of a configured class.

    Raises:
        ValueError: from the constructor, or if a schedule or any of its values is invalid; starts with the setting.
    """
    schedules = schedules_of(kind, arguments)
    if not schedules:
        return kind(*args, **arguments)
    for name, schedule in schedules.items():
        check_schedule(name, schedule)
    numbers = numeric_settings(kind)
    start: dict[str, Any] = {name: numbers[name](value_at(own, 0)) for name, own in schedules.items()}
    strategy = kind(*args, **(arguments | start))
    return next(own for base, own in SCHEDULED.items() if issubclass(kind, base))(strategy, schedules)


def schedules_of(kind: type, arguments: Mapping[str, Any]) -> dict[str, Schedule]:
    """Return the arguments of a class that are schedules; only strategies have some."""
    if not issubclass(kind, tuple(SCHEDULED)):
        return {}
    numbers = numeric_settings(kind)
    given = {name: own for name, own in arguments.items() if name in numbers and isinstance(own, Mapping)}
    return cast(dict[str, Schedule], given)


def refused_schedule(key: str, message: str) -> UserError | None:
    """Return the error of a schedule that the parser refuses; None for other messages.

    Args:
        key: setting.
        message: of jsonargparse.
    """
    given = re.search(r"(?:Given|Got) value: (\{.*?\})(?:\s|$)", " ".join(message.split()))
    value = yaml.safe_load(given[1]) if given else {}
    if not looks_scheduled(value):
        return None
    if "Schedule" not in message:
        remedy = "give a value that stays, or change the strategy by phase (FilterSequence, ObjectiveSequence)"
        return UserError(key, _text(value), "only a number can follow a schedule", remedy)
    return UserError(key, _text(value), f"this is no schedule: {_problem(value)}", f"write {FORM}")


def looks_scheduled(value: object) -> bool:
    """Return whether a value of a configuration is meant as a schedule."""
    return isinstance(value, Mapping) and len({"from", "to", "steps"} & value.keys()) >= 2


def _problem(value: Mapping[str, Any]) -> str:
    keys = Schedule.__annotations__
    missing, unknown = sorted(Schedule.__required_keys__ - value.keys()), sorted(value.keys() - keys.keys())
    if missing or unknown:
        return f"{missing[0]} is missing" if missing else f"{unknown[0]} is not one of its keys ({', '.join(keys)})"
    whole = next((name for name in ("steps", "start") if not isinstance(value.get(name, 0), int)), None)
    return f"{whole} must be an integer" if whole else "from and to must be numbers, and shape linear or cosine"


def _text(value: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{name}: {own}' for name, own in value.items())}}}"
