"""Errors of Lightning's trainer as errors of its settings."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import WARNING, getLogger
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from fireopd.errors import UserError

__all__ = ["CAUSES", "trainer_error", "without_device_lines"]

CAUSES = (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError)
"""Errors of a trainer's constructor that settings cause."""


def trainer_error(settings: Mapping[str, Any], error: Exception) -> UserError:
    """Return the error of the setting that a message of the trainer names, by its name or its value.

    Args:
        settings: arguments of the trainer by name.
        error: error of its constructor.
    """
    reason = " ".join(str(error).split()).rstrip(".!")
    named = next((name for name in re.findall(r"\w+", reason) if name in settings), None)
    words = {name: value.lower() for name, value in settings.items() if isinstance(value, str) and value != "auto"}
    named = named or next((name for name, word in words.items() if len(word) > 2 and word in reason.lower()), None)
    if named in (None, "accelerator"):
        remedy = "fix the trainer's settings; use --trainer.accelerator cpu on a machine without a GPU"
        return UserError("trainer.accelerator", str(settings["accelerator"]), reason, remedy)
    return UserError(f"trainer.{named}", settings[named], reason, "change this setting")


@contextmanager
def without_device_lines() -> Iterator[None]:
    """Context in which a trainer prints nothing on the devices that it finds."""
    log = getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
