"""Time and memory of the embedded job, in a separate process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fireopd_runs import embedded_arguments, is_part
from benchmarks.ratios import spread
from benchmarks.settings import Settings
from benchmarks.subprocess_runs import run_in_subprocess


def own_run(settings: Settings, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the seconds of each part of a step, and the peak memory of the process with that after the imports."""
    arguments = embedded_arguments(settings, "--trainer.default_root_dir", str(folder))
    output = run_in_subprocess(arguments, steps=settings.warm_up + settings.pairs, settings=settings)
    steps = output["steps"][settings.warm_up :]
    names = sorted({key.split("/")[1] for step in steps for key in step if key.startswith("time/")})
    split = {name: [sum(v for key, v in step.items() if is_part(key, name)) for step in steps] for name in names}
    yield "seconds", {name: {**spread(values), "each": values} for name, values in split.items()}
    yield "memory", {"peak_bytes": output["peak_bytes"], "after_imports_bytes": output["before_bytes"]}
