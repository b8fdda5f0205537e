"""Isolation by namespaces: a world of its own with nothing in it but Python, without network and other processes.

The jailer goes into one world for good; each program gets a list of processes and an empty folder of its own in it.
"""

import ctypes
import os

from fireopd.verifiers.sandbox import readable_paths, syscalls

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
RDONLY, NOSUID, NODEV = 0x1, 0x2, 0x4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442
ROOT = "/proc"
"""The folder on which the new root is built: one that is everywhere, and of which nothing is taken over."""
HOME = "/program"
"""The one folder that a program can write in."""
TEMPORARY = "/tmp"
"""The same folder by its usual name, unless Python or packages lie in there."""


def enter() -> str:
    """Take this process, the jailer, out of the machine's network and files; return its map of user ids.

    Raises:
        OSError: if the machine does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    worlds = NEWNS | NEWNET | NEWIPC | NEWUTS
    try:
        syscalls.call("unshare", worlds)
    except PermissionError:
        syscalls.call("unshare", worlds | NEWUSER)
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


def part() -> None:
    """Give the children of this process a list of processes of their own; the first of them ends all others.

    Raises:
        OSError: if the machine does not allow it.
    """
    syscalls.call("unshare", NEWPID | NEWNS | NEWIPC)


def furnish(disk: int, user: int) -> None:
    """Make an empty folder of `disk` bytes for a program, in memory, which ends with it; and go there."""
    options = f"size={disk},nr_inodes=4096,mode=700,uid={user},gid={user}"
    syscalls.call("mount", b"program", HOME.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    os.chdir(HOME)


def spare_user(user_map: str, process: int) -> int:
    """Return a user id that nobody else has, so that a program's threads are counted alone.

    Args:
        user_map: what /proc/self/uid_map holds.
        process: id of a process, different for all that run.
    """
    first, _, count = (int(number) for number in user_map.split()[:3])
    return first if count < 3 else first + count - 3 - process % (count // 2)


def _build() -> None:
    syscalls.call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    shown = [*readable_paths.readable(), *readable_paths.DEVICES]
    # What has to be told apart before /proc is built over: folders from files.
    folders = {path: os.path.isdir(path) for path in shown if os.path.exists(path)}
    syscalls.call("mount", b"root", ROOT.encode(), b"tmpfs", MS_NOSUID, b"size=1m,mode=755")
    for path, folder in folders.items():
        place = ROOT + path
        if folder:
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
    wanted = (ctypes.c_uint64 * 4)(attributes)
    syscalls.call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, place.encode(), scope, wanted, ctypes.sizeof(wanted))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
