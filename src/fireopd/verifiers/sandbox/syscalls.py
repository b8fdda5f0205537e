"""Linux system calls without an interface in the standard library."""

import ctypes
import os

__all__ = [
    "PR_CAPBSET_DROP",
    "PR_SET_DUMPABLE",
    "PR_SET_NO_NEW_PRIVS",
    "PR_SET_PDEATHSIG",
    "PR_SET_SECCOMP",
    "call",
    "drop_capabilities",
    "prctl",
]

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38


def call(name: str, *arguments: int | bytes | ctypes.Array | None) -> int:
    """Call a function of the C library; integers are passed as long, bytes and structures as pointers.

    Raises:
        OSError: if it returns -1.
    """
    result = _libc[name](*[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, address: ctypes.Array | None = None) -> None:
    """Set a property of this process or thread."""
    call("prctl", option, value, address, 0, 0)


def drop_capabilities() -> None:
    """Drop all privileges permanently, also for programs that are executed later."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except PermissionError:
            break  # no capability to drop
        except OSError:
            break  # beyond the last capability
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    call("capset", header, (ctypes.c_uint32 * 6)())
    prctl(PR_SET_NO_NEW_PRIVS, 1)
