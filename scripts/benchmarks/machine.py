"""Description of the machine."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("fireopd", "torch", "lightning", "transformers", "trl", "accelerate")
"""Packages whose versions are reported."""


def describe() -> dict[str, Any]:
    """Return processor, cores, memory, accelerator and versions."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int((_field(Path("/proc/meminfo"), "MemTotal") or "0").split()[0]) * 1024,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def free_memory() -> int:
    """Return the free memory of the accelerator, or of the machine without one, bytes."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return int((_field(Path("/proc/meminfo"), "MemAvailable") or "0").split()[0]) * 1024


def _field(path: Path, name: str) -> str | None:
    if not path.is_file():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)
