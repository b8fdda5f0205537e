"""Errors of Lightning's trainer as errors of its settings."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import ERROR, getLogger
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from fireopd.errors import UserError

__all__ = ["CAUSES", "quiet_trainer", "trainer_error"]

CAUSES = (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError)
"""Errors of a trainer's constructor that settings cause."""


def trainer_error(settings: Mapping[str, Any], error: Exception) -> UserError:
    """Return the error of the setting that a message of the trainer names, by its name or its value.

    Args:
        settings: arguments of the trainer by name.
        error: error of its constructor.
    """
    reason = " ".join(str(error).split()).rstrip(".!")
    named = next((name for name in re.findall(r"\w+", reason) if name in settings), None) or _by_value(settings, reason)
    if named is None:
        return UserError("trainer", "Trainer", reason, "fix its settings")
    remedy = "use cpu on a machine without a GPU" if named == "accelerator" else "change this setting"
    value = settings[named]
    objects = isinstance(value, list) and not all(isinstance(own, str | int) for own in value)
    shown = ", ".join(type(own).__name__ for own in value) if objects else value
    return UserError(f"trainer.{named}", shown, reason, remedy)


def _by_value(settings: Mapping[str, Any], reason: str) -> str | None:
    """Return the first setting whose value, a word or a quoted text, is in a message; None if there is none."""
    text = reason.lower().replace("_", "-")
    words = {name: value.lower() for name, value in settings.items() if isinstance(value, str) and value != "auto"}
    return next((name for name, word in words.items() if repr(word) in text or (len(word) > 2 and word in text)), None)


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """Context in which a trainer prints neither the devices that it finds nor warnings."""
    log = getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
