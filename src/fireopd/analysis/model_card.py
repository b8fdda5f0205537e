"""Model card of an exported student: method, teachers, data, results with intervals, versions, and how to load it."""

import json
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from fireopd.analysis.tables import Cell, Table

__all__ = ["model_card", "wilson_interval"]

PACKAGES = ("fireopd", "torch", "transformers", "lightning", "vllm", "peft")
"""Packages whose versions are listed."""
LOAD = """
## Load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

vLLM serves it with `vllm serve {name}`.
"""
LOAD_ADAPTER = """
## Load

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{name}")
```
"""


def model_card(name: str, student: str, saved: Mapping[str, Any], run: Path | None, *, adapter: bool) -> str:
    """Return the card in Markdown. Folders of this machine are named by their last part only.

    Args:
        name: name under which the model is loaded: the repository on the hub, or the exported folder.
        student: initial model of the student.
        saved: part of the checkpoint that the module wrote; see `run_state`.
        run: folder of the run; None if it is not known.
        adapter: whether the adapter alone is exported.
    """
    settings = _part(saved, "settings")
    base = _public(student)
    data = ModelCardData(
        base_model=base if base == student and "/" in base and not base.startswith("tiny/") else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["on-policy-distillation", "fireopd"],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {Path(name).name}\n",
        f"{base} after {saved['policy_version']} optimizer steps of on-policy distillation with fireopd.\n",
        *_method(settings),
        *_teachers(settings),
        *_data(settings),
        *_results(run),
        *_versions(run),
        (LOAD_ADAPTER if adapter else LOAD).format(name=name),
    ]
    return "\n".join(parts)


def wilson_interval(share: float, number: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval of a share of independent prompts.

    For avg@k it is conservative: a mean of k responses varies less between prompts than a single response.

    Args:
        share: observed share.
        number: number of prompts.
        level: coverage.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * sqrt(share * (1 - share) / number + z * z / (4 * number**2))
    return middle - half, middle + half


def _part(settings: Any, key: str) -> Mapping[str, Any]:
    """Return the mapping of a key; an empty one if there is none, as in checkpoints of old versions."""
    found = settings.get(key) if isinstance(settings, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _kind(configured: Any) -> str:
    """Return the name of a configured class."""
    path = configured.get("class_path", "-") if isinstance(configured, Mapping) else configured
    return str(path).rpartition(".")[2]


def _public(path: str) -> str:
    """Return a hub name or an embedded model as it is, and the last part of a local folder."""
    return Path(path).name if Path(path).is_absolute() or Path(path).is_dir() else path


def _method(settings: Mapping[str, Any]) -> list[str]:
    keys = ("trajectory_filter", "token_weighter", "objective", "normalization", "reduction", "adapter")
    model = _part(settings, "model")
    shown = {key: model[key] for key in keys if model.get(key) is not None}
    return [f"## Method\n\n```yaml\n{yaml.safe_dump(shown, sort_keys=False)}```\n"] if shown else []


def _teachers(settings: Mapping[str, Any]) -> list[str]:
    teachers = _part(_part(settings, "model"), "teachers")
    rows: list[list[Cell]] = []
    for name, teacher in teachers.items():
        rows.append([name, _kind(teacher), _public(str(_part(teacher, "init_args").get("path", "-")))])
    return [Table("Teachers", ["name", "class", "model"], rows).to_markdown()] if rows else []


def _data(settings: Mapping[str, Any]) -> list[str]:
    prompts = _part(_part(settings, "data"), "prompts")
    if not prompts:
        return []
    given = {key: value for key, value in _part(prompts, "init_args").items() if isinstance(value, str | int | float)}
    facts = [f"`{key}`: {_public(value) if isinstance(value, str) else value}" for key, value in given.items()]
    return [f"## Data\n\n{'; '.join([_kind(prompts), ', '.join(facts)])}.\n"]


def _results(run: Path | None) -> list[str]:
    try:
        summary = json.loads((run / "summary.json").read_text()) if run else {}
    except (OSError, ValueError):
        summary = {}
    rows: list[list[Cell]] = []
    for task, row in summary.get("tasks", {}).items():
        cells = [row["student_before"], row["student_after"], row["teacher"]]
        rows.append([task, *(_share(cell, summary.get("prompts", {}).get(task)) for cell in cells)])
    columns = ["task", "student before", "student after", "teacher"]
    note = "avg@k on held-out prompts, with 95 % Wilson intervals over the prompts."
    return [Table("Results", columns, rows, note).to_markdown()] if rows else []


def _share(share: float | None, prompts: int | None) -> str:
    if share is None:
        return "-"
    if not prompts:
        return f"{share:.3f}"
    low, high = wilson_interval(share, prompts)
    return f"{share:.3f} ({low:.3f} to {high:.3f})"


def _versions(run: Path | None) -> list[str]:
    try:
        packages = json.loads((run / "environment.json").read_text())["packages"] if run else {}
    except (OSError, ValueError, KeyError):
        packages = {}
    rows = [[name, packages[name]] for name in PACKAGES if name in packages]
    return [Table("Versions", ["package", "version"], rows).to_markdown()] if rows else []
