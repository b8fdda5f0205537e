"""Our embedded job alone, in a process of its own: where its time goes, and what memory it takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.jobs import embedded, is_part
from benchmarks.processes import run_apart
from benchmarks.ratios import spread
from benchmarks.settings import Settings


def own_run(settings: Settings, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the seconds of each part of a step, and the peak of the process's memory, imports left out."""
    arguments = embedded(settings, "--trainer.default_root_dir", str(folder))
    told = run_apart(arguments, steps=settings.warm_up + settings.pairs, settings=settings)
    steps = told["steps"][settings.warm_up :]
    names = sorted({key.split("/")[1] for step in steps for key in step if key.startswith("time/")})
    split = {name: [sum(v for key, v in step.items() if is_part(key, name)) for step in steps] for name in names}
    yield "seconds", {name: {**spread(values), "each": values} for name, values in split.items()}
    yield "memory", {"peak_bytes": told["peak_bytes"], "after_imports_bytes": told["before_bytes"]}
