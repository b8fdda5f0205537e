"""Isolation by Landlock, for machines without user namespaces.

Programs can read Python and the libraries, and cannot write anything.

`seccomp.py` covers what Landlock does not restrict: sockets, signals, owners and times of files, and files opened
neither for reading nor for writing.
"""

import ctypes
import os

from fireopd.verifiers.sandbox import readable_paths, syscalls

__all__ = ["RIGHTS", "restrict", "version"]

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 0x1, 0x2, 0x4, 0x8
RIGHTS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All file access rights by the version of Landlock that added the last of them: truncation (3), ioctl on devices (5).
Before version 3, programs could truncate any file."""


def version() -> int:
    """Return the Landlock version of the kernel, 0 without Landlock."""
    try:
        return syscalls.call("syscall", CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict() -> None:
    """Restrict this process and its descendants.

    Raises:
        OSError: if the machine does not allow it, or its Landlock is older than version 3 (Linux 6.2).
    """
    known = version()
    if known < min(RIGHTS):
        raise OSError("Landlock is missing or cannot prevent the truncation of files")
    handled = (ctypes.c_uint64 * 1)(RIGHTS[max(first for first in RIGHTS if first <= known)])
    rules = syscalls.call("syscall", CREATE_RULESET, handled, ctypes.sizeof(handled), 0)
    for path in readable_paths.find_readable():
        _allow(rules, path, READ_FILE | EXECUTE | (READ_DIR if os.path.isdir(path) else 0))
    for path in readable_paths.DEVICES:
        if os.path.exists(path):
            _allow(rules, path, READ_FILE | WRITE_FILE)
    syscalls.call("syscall", RESTRICT_SELF, rules, 0)
    os.close(rules)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _allow(rules: int, path: str, rights: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    syscalls.call("syscall", ADD_RULE, rules, 1, bytes(_Beneath(rights, folder)), 0)
    os.close(folder)
