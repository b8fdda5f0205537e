"""Conditions of a comparison: test beds, or the values of settings that are varied.

Every method is trained under every condition. Differences are taken under the same condition, with the same seed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from fireopd.errors import UserError

__all__ = ["Condition", "beds", "check_effect", "files_by_name", "variations"]

MOST_VARIED = 2
"""Number of settings that can be varied together."""


@dataclass(frozen=True)
class Condition:
    """Settings that all runs of a condition share."""

    name: str = ""
    """Name, also of the folder; empty for the only condition of a comparison."""
    overlay: Path | None = None
    """File with settings, which a method may override."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Varied settings by key, which override those of a method."""

    @property
    def before(self) -> list[str]:
        """Arguments of `fireopd fit` before the method."""
        return [] if self.overlay is None else ["--config", str(self.overlay)]

    @property
    def after(self) -> list[str]:
        """Arguments of `fireopd fit` after all others."""
        return [f"--{key}={_text(value)}" for key, value in self.values.items()]


def files_by_name(paths: Sequence[Path], kind: str) -> dict[str, Path]:
    """Return YAML files by their name without suffix.

    Args:
        paths: files of the option `--methods` or `--beds`.
        kind: what a file describes: `method` or `bed`.

    Raises:
        UserError: if a file does not exist, or two files have the same name.
    """
    option, found = f"--{kind}s", dict[str, Path]()
    for path in paths:
        if not path.is_file():
            raise UserError(option, str(path), "no such file", f"give the YAML file of a {kind}")
        if path.stem in found:
            problem = f"{found[path.stem]} has the same name"
            raise UserError(option, str(path), problem, f"rename one of them: {kind}s are identified by name")
        found[path.stem] = path
    return found


def beds(paths: Sequence[Path]) -> list[Condition]:
    """Return the condition of each bed, named as its file.

    Raises:
        UserError: see `files_by_name`.
    """
    return [Condition(name, path) for name, path in files_by_name(paths, "bed").items()]


def variations(texts: Sequence[str]) -> list[Condition]:
    """Return the conditions of all combinations of values, given as `KEY=v1,v2,...`.

    Values are YAML, such as `0.1`, `null`, `UniformWeighter` or `{class_path: LengthFilter}`.

    Raises:
        UserError: if a text has another form, a key or value occurs twice, or there are more than two keys.
    """
    varied: dict[str, list[Any]] = {}
    for text in texts:
        key, values = _variation(text)
        if key in varied:
            raise UserError("--vary", text, f"{key} occurs twice", "list all values of a setting once")
        varied[key] = values
    if len(varied) > MOST_VARIED:
        raise UserError("--vary", " ".join(varied), f"{len(varied)} settings", f"vary at most {MOST_VARIED}")
    combinations = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    return [Condition(_name(values), values=values) for values in combinations]


def _variation(text: str) -> tuple[str, list[Any]]:
    key, _, listed = text.partition("=")
    key = key.strip().removeprefix("--")
    try:
        values = yaml.safe_load(f"[{listed}]") if key and listed.strip() else []
    except yaml.YAMLError as error:
        raise UserError("--vary", text, "the values are not YAML", "write KEY=v1,v2,...") from error
    if len(values) < 2:
        raise UserError("--vary", text, "at least two values are needed", "write KEY=v1,v2,...")
    if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
        raise UserError("--vary", text, "a value occurs twice", "list each value once")
    return key, values


def _name(values: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={_text(value)}" for key, value in values.items()).replace("/", "_")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_effect(settings: Mapping[tuple[str, str], Mapping[str, Any]], option: str) -> None:
    """Check that the runs of a method differ between conditions.

    Args:
        settings: all settings by dotted key, by condition and method.
        option: option that gives the conditions, for the error message.

    Raises:
        UserError: if a method has the same settings under two conditions.
    """
    seen: dict[tuple[str, str], str] = {}
    for (condition, method), own in settings.items():
        compared = {key: value for key, value in own.items() if key != "trainer.default_root_dir"}
        text = json.dumps(compared, sort_keys=True)
        other = seen.setdefault((method, text), condition)
        if other != condition:
            problem = f"{method} has the same settings there as under {other}"
            raise UserError(option, condition, problem, "leave one of them out, or the method that overrides it")
