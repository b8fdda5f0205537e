"""Files of a run folder that a report reads."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.analysis.metrics_file import Curve, read_metrics
from fireopd.analysis.runs import RunStatus, read_settings
from fireopd.training.run_layout import CONFIG, WARNINGS

__all__ = ["RunFiles"]


@dataclass(frozen=True)
class RunFiles:
    """Contents of the files of a run; missing files give empty values."""

    status: RunStatus
    """State, steps, accuracy, seed and method."""
    settings: Mapping[str, Any]
    """Settings, from `config.yaml`."""
    config: str
    """Text of `config.yaml`."""
    environment: Mapping[str, Any]
    """Versions, machine and revision, from `environment.json`."""
    summary: Mapping[str, Any]
    """Results of a finished run, from `summary.json`."""
    curves: Mapping[str, Curve]
    """Finite metrics by name, from `metrics.csv`."""
    warnings: Sequence[Mapping[str, Any]]
    """Warnings of the health watch with `step` and `warning`, from `warnings.jsonl`."""
    pages: Sequence[Path]
    """Pages of trajectories, by step."""

    @classmethod
    def read(cls, folder: Path) -> "RunFiles":
        """Read the files of the folder of a run, `version_<n>`."""
        curves = read_metrics(folder / "metrics.csv")
        finite = {tag: {step: y for step, y in curve.items() if math.isfinite(y)} for tag, curve in curves.items()}
        lines = _text(folder / WARNINGS).splitlines()
        return cls(
            status=RunStatus.of(folder),
            settings=read_settings(folder),
            config=_text(folder / CONFIG),
            environment=_json(_text(folder / "environment.json")),
            summary=_json(_text(folder / "summary.json")),
            curves={tag: curve for tag, curve in finite.items() if curve},
            warnings=[found for found in map(_json, lines) if {"step", "warning"} <= found.keys()],
            pages=sorted((folder / "trajectories").glob("step_*.html")),
        )

    def section(self, name: str) -> Mapping[str, Any]:
        """Return the settings of `model`, `data` or `trainer`; none if they cannot be read."""
        found = self.settings.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers that the metrics have."""
        return sorted(tag.removeprefix("rollout/length/") for tag in self.curves if tag.startswith("rollout/length/"))

    @property
    def tasks(self) -> list[str]:
        """Tasks of the held-out prompts."""
        parts = [tag.split("/") for tag in self.curves]
        return sorted("/".join(p[1:-1]) for p in parts if p[0] == "val" and p[-1] == "avg_at_k" and len(p) > 2)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
