"""Isolation by namespaces: a file system that contains only Python, no network, and no other processes.

The supervisor enters new namespaces permanently; each program gets its own PID namespace and an empty folder.
"""

import ctypes
import os

from fireopd.verifiers.sandbox import readable_paths, syscalls

__all__ = ["HOME", "ROOT", "TEMPORARY", "enter", "mount_home", "unshare_processes", "unused_user"]

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
RDONLY, NOSUID, NODEV = 0x1, 0x2, 0x4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442
ROOT = "/proc"
"""Mount point of the new root: a folder that exists everywhere and that the new root does not contain."""
HOME = "/program"
"""The only folder that a program can write to."""
TEMPORARY = "/tmp"
"""Link to the same folder, unless Python or packages are installed there."""


def enter() -> str:
    """Isolate this process from network and file system, and return its user id map.

    Raises:
        OSError: if the machine does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    flags = NEWNS | NEWNET | NEWIPC | NEWUTS
    try:
        syscalls.call("unshare", flags)
    except PermissionError:
        syscalls.call("unshare", flags | NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    with open("/proc/self/uid_map") as file:
        user_map = file.read()
    _build()
    os.chdir(ROOT)
    syscalls.call("syscall", SYS_PIVOT_ROOT[os.uname().machine], b".", b".")
    syscalls.call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    return user_map


def unshare_processes() -> None:
    """Put the children of this process into a new PID namespace; the end of the first child ends all others.

    Raises:
        OSError: if the machine does not allow it.
    """
    syscalls.call("unshare", NEWPID | NEWNS | NEWIPC)


def mount_home(disk: int, user: int) -> None:
    """Mount an empty in-memory folder of `disk` bytes for a program, and change to it. It ends with the program."""
    options = f"size={disk},nr_inodes=4096,mode=700,uid={user},gid={user}"
    syscalls.call("mount", b"program", HOME.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    os.chdir(HOME)


def unused_user(user_map: str, process: int) -> int:
    """Return a user id that no other process has, so that the thread limit applies to one program.

    Args:
        user_map: content of /proc/self/uid_map.
        process: process id, different for all running programs.
    """
    first, _, count = (int(number) for number in user_map.split()[:3])
    return first if count < 3 else first + count - 3 - process % (count // 2)


def _build() -> None:
    syscalls.call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    visible = [*readable_paths.find_readable(), *readable_paths.DEVICES]
    # Look before the new root covers /proc, which some paths are links into.
    folders = {path: os.path.isdir(path) for path in visible if os.path.exists(path)}
    syscalls.call("mount", b"root", ROOT.encode(), b"tmpfs", MS_NOSUID, b"size=1m,mode=755")
    for path, is_folder in folders.items():
        place = ROOT + path
        if is_folder:
            os.makedirs(place)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        syscalls.call("mount", path.encode(), place.encode(), None, MS_BIND | MS_REC, None)
        _restrict(place, RDONLY | NOSUID | (NODEV if path not in readable_paths.DEVICES else 0), AT_RECURSIVE)
    os.mkdir(ROOT + HOME, 0o755)
    if not os.path.exists(ROOT + TEMPORARY):
        os.symlink(HOME, ROOT + TEMPORARY)
    _restrict(ROOT, RDONLY | NOSUID, 0)


def _restrict(place: str, attributes: int, scope: int) -> None:
    request = (ctypes.c_uint64 * 4)(attributes)
    syscalls.call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, place.encode(), scope, request, ctypes.sizeof(request))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
