"""What of the machine's files a program may read: Python, installed packages, and the system's libraries."""

import os
import sys

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
"""Devices that a program may use."""


def readable() -> list[str]:
    """Return folders and files that a program may read; none lies within another."""
    system = ["/usr", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"]
    packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    found: list[str] = []
    for path in sorted({*system, *packages, sys.prefix, sys.base_prefix}):
        inside = any(path.startswith(f"{folder}/") for folder in found)
        if os.path.exists(path) and path != "/" and not inside:
            found.append(path)
    return found
