"""Paths that a program may read: Python, installed packages, and the libraries of the system."""

import os
import sys

__all__ = ["DEVICES", "find_readable"]

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
"""Devices that a program may use."""


def find_readable() -> list[str]:
    """Return the folders and files that a program may read; none is inside another."""
    system = ["/usr", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"]
    packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    found: list[str] = []
    for path in sorted({*system, *packages, sys.prefix, sys.base_prefix}):
        inside = any(path.startswith(f"{folder}/") for folder in found)
        if os.path.exists(path) and path != "/" and not inside:
            found.append(path)
    return found
