"""What of the machine's files a program may read: Python, and the system's libraries."""

import os
import sys

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
"""Devices that a program may use."""


def readable() -> list[str]:
    """Return folders and files that a program may read; none lies within another."""
    system = ["/usr", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"]
    found: list[str] = []
    for path in sorted({*system, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}):
        inside = any(path.startswith(f"{folder}/") for folder in found)
        if os.path.exists(path) and path != "/" and not inside:
            found.append(path)
    return found
