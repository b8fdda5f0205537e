"""Isolation by Landlock, where namespaces are forbidden: a program reads Python and libraries, and writes nothing.

What Landlock leaves open (sockets, signals, owners and times of files) `seccomp.py` closes.
"""

import ctypes
import os

from fireopd.verifiers.sandbox import linux, paths

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 0x1, 0x2, 0x4, 0x8
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""All rights to files that a version of Landlock knows; later ones as well as version 3 cut files short, too."""


def version() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    try:
        return linux.call("syscall", CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict() -> None:
    """Restrict this process and all that come of it.

    Raises:
        OSError: if the machine does not allow it.
    """
    known = version()
    if known == 0:
        raise OSError("no Landlock")
    handled = (ctypes.c_uint64 * 1)(RIGHTS[min(known, 3)])
    rules = linux.call("syscall", CREATE_RULESET, handled, ctypes.sizeof(handled), 0)
    for path in paths.readable():
        _allow(rules, path, READ_FILE | EXECUTE | (READ_DIR if os.path.isdir(path) else 0))
    for path in paths.DEVICES:
        if os.path.exists(path):
            _allow(rules, path, READ_FILE | WRITE_FILE)
    linux.call("syscall", RESTRICT_SELF, rules, 0)
    os.close(rules)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _allow(rules: int, path: str, rights: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    linux.call("syscall", ADD_RULE, rules, 1, bytes(_Beneath(rights, folder)), 0)
    os.close(folder)
