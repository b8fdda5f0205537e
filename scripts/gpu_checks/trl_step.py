"""A step of TRL's DistillationTrainer next to one of fireopd, on the embedded models."""

import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from gpu_checks.measure import attempt
from gpu_checks.sizes import Row, Sizes

NEEDED = ("trl", "datasets", "accelerate", "jsonargparse")
"""Packages that this question needs besides those of a run."""
ROOT = Path(__file__).parents[2]


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the ratio of both steps, or the reason to skip it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        yield {"case": "TRL", "skipped": f"Skipped: {', '.join(missing)} cannot be imported."}
        return
    with tempfile.TemporaryDirectory() as folder:
        register_plugins(Path(folder, "site"))
        yield from ratios(sizes, Path(folder))


def ratios(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Yield the ratios of scripts/bench.py to TRL."""
    from benchmarks.ratios import LeftOut
    from benchmarks.settings import Settings
    from benchmarks.training_steps import against_trl

    settings = Settings.quick() if sizes.tiny_models else Settings(pairs=3, warm_up=1)
    for found in against_trl(settings, folder):
        if isinstance(found, LeftOut):
            yield {"case": found.name, "skipped": found.reason}
            continue
        ratio = found.to_json()
        numbers = {"ratio": ratio["median"], "lowest": ratio["min"], "highest": ratio["max"]}
        sides = {"TRL s": ratio["numerator"]["median"], "fireopd s": ratio["denominator"]["median"]}
        yield attempt(found.name, lambda row=numbers | sides: row)  # type: ignore[misc]


def register_plugins(folder: Path) -> None:
    """Register the plug-ins of a checkout that is on the path but not installed."""
    try:
        version("fireopd")
    except PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        place = folder / f"fireopd-{project['version']}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fireopd\nVersion: {project['version']}\n")
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (place / "entry_points.txt").write_text("\n".join(lines) + "\n")
        sys.path.append(str(folder))
