"""Provenance of runs and reports: package versions, machine, Git revision of the working directory."""

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

__all__ = ["environment", "packages", "revision", "versions"]

SHOWN = ("fireopd", "torch", "transformers", "lightning")
"""Packages listed in a report."""


def versions() -> str:
    """Return the versions of the main packages as text."""
    return ", ".join(f"{name} {version(name)}" for name in SHOWN)


def environment(folder: Path) -> dict[str, Any]:
    """Return package versions, machine and revision as JSON values.

    Args:
        folder: working directory, whose Git revision is included if it is in a repository.
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
    """Return the versions of fireopd and of its installed dependencies, including those of its extras."""
    found = {}
    for name in ("fireopd", *(re.split(r"[^\w.-]", line)[0] for line in requires("fireopd") or [])):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # dependency of an extra
            continue
    return dict(sorted(found.items()))


def revision(folder: Path) -> dict[str, Any] | None:
    """Return the commit (`revision`) and whether tracked files differ from it (`changed`); None outside Git."""
    if shutil.which("git") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"revision": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
