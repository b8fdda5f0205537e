"""What a run or a report was computed with: versions, machine, revision of the working directory."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

SHOWN = ("fireopd", "torch", "transformers", "lightning")
"""The packages that a report names."""


def versions() -> str:
    """Return the versions of what computed the numbers, for a person."""
    return ", ".join(f"{name} {version(name)}" for name in SHOWN)


def environment(folder: Path) -> dict[str, Any]:
    """Return versions, machine and revision: what one would ask for when a run cannot be repeated.

    Args:
        folder: the working directory, whose revision is told if git keeps it.
    """
    cuda = torch.cuda.is_available()
    return {
        "command": sys.argv,
        "folder": str(folder),
        "git": revision(folder),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else [],
        "cuda": torch.version.cuda,
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Return the version of fireopd and of each package that it or one of its extras names, where it is installed."""
    found = {}
    for name in ("fireopd", *(re.split(r"[^\w.-]", line)[0] for line in requires("fireopd") or [])):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of an extra
            continue
    return dict(sorted(found.items()))


def revision(folder: Path) -> dict[str, Any] | None:
    """Return `revision`, and whether there are changes beyond it (`changed`); None where git keeps nothing."""
    if shutil.which("git") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"revision": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
