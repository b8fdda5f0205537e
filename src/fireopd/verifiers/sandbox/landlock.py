"""Isolation by Landlock, where namespaces are forbidden: a program reads Python and libraries, and writes nothing.

What Landlock leaves open (sockets, signals, owners and times of files, files opened neither to read nor to write)
`seccomp.py` closes.
"""

import ctypes
import os

from fireopd.verifiers.sandbox import readable_paths, syscalls

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 0x1, 0x2, 0x4, 0x8
RIGHTS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files by the version of Landlock that brought the last of them: to cut a file short, which a program
could do to any file before; to control a device."""


def version() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    try:
        return syscalls.call("syscall", CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict() -> None:
    """Restrict this process and all that come of it.

    Raises:
        OSError: if the machine does not allow it, or its Landlock is older than version 3, of Linux 6.2.
    """
    known = version()
    if known < min(RIGHTS):
        raise OSError("no Landlock that keeps files from being cut short")
    handled = (ctypes.c_uint64 * 1)(RIGHTS[max(first for first in RIGHTS if first <= known)])
    rules = syscalls.call("syscall", CREATE_RULESET, handled, ctypes.sizeof(handled), 0)
    for path in readable_paths.readable():
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
