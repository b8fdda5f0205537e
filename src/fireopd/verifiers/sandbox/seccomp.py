"""System call filter of a program: no sockets, no other processes, and no calls that tests do not need.

Since a program cannot start processes, the limits of its process cover everything it does.
"""

import ctypes
import errno
import os
import struct

from fireopd.verifiers.sandbox import syscalls

__all__ = ["ARCHITECTURES", "FORBIDDEN", "METADATA", "OWN", "filter_steps", "restrict"]

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: number on x86_64, number on aarch64
FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # network
    "socket": (41, 198),
    # other processes: start, signal, inspect, slow down
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "migrate_pages": (256, 238), "move_pages": (279, 239), "setpriority": (141, 140),
    "getpriority": (140, 141),
    "ioprio_set": (251, 30),
    "ioprio_get": (252, 31), "setsid": (112, 157), "setpgid": (109, 154), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    # memory that no limit counts, or that is shared
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmctl": (31, 195),
    "shmat": (30, 196), "semget": (64, 190), "semctl": (66, 191), "semop": (65, 193), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgctl": (71, 187), "msgsnd": (69, 189), "msgrcv": (70, 188), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # namespaces and file systems
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    # settings of the machine, and large kernel interfaces
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161),
    "setdomainname": (171, 162), "syslog": (103, 116), "quotactl": (179, 60), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "personality": (135, 92), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "vhangup": (153, 58),
}  # fmt: skip
METADATA: dict[str, tuple[int | None, int | None]] = {
    "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
}  # fmt: skip
"""Calls that change files without writing to them; forbidden if files outside the sandbox are visible."""
CLONE, CLONE3, TGKILL = (56, 220), (435, 435), (234, 131)
OPEN, OPENAT, OPENAT2 = (2, None), (257, 56), (437, 437)
ARGUMENTS = [((157, 167), 0, syscalls.PR_SET_PDEATHSIG)]
"""Calls that are forbidden for one value of an argument: resetting the parent death signal; below: signals via files,
input to a terminal, and socket pairs that can send to other sockets."""
ARGUMENTS += [((72, 25), 1, command) for command in (8, 10, 15)]  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX
ARGUMENTS += [((16, 29), 1, command) for command in (0x8901, 0x8902, 0x5412, 0x541C)]  # ioctl: FIOSETOWN, TIOCSTI...
for flags in (0, os.O_NONBLOCK, os.O_CLOEXEC, os.O_NONBLOCK | os.O_CLOEXEC):
    ARGUMENTS += [((53, 199), 1, kind | flags) for kind in (2, 3)]  # socketpair: SOCK_DGRAM, SOCK_RAW
CLONE_THREAD = 0x10000
OWN = {
    "prlimit64": (302, 261), "getsid": (124, 156), "getpgid": (121, 155), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_getattr": (315, 275), "sched_rr_get_interval": (148, 127),
    "get_robust_list": (274, 100),
}  # fmt: skip
"""Calls whose first argument must be 0, the calling process."""

LOAD, EQUAL, AT_LEAST, ANY_OF, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16


def restrict(*, metadata: bool) -> None:
    """Restrict this process permanently.

    Args:
        metadata: also forbid calls that change files without writing to them.

    Raises:
        OSError: if the machine does not allow it.
    """
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        raise OSError(f"no table of system calls for {machine}")
    column = list(ARCHITECTURES).index(machine)
    steps = filter_steps(ARCHITECTURES[machine], column, os.getpid(), metadata=metadata)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, program)


def filter_steps(architecture: int, column: int, process: int, *, metadata: bool) -> list[tuple[int, int, int, int]]:
    """Return the BPF instructions of the filter: operation, jump if true, jump if false, operand."""
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    steps = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    steps += [(AT_LEAST, 0, 1, 0x40000000), refuse]  # x32: the same calls with other numbers
    forbidden = [*FORBIDDEN.values(), *(METADATA.values() if metadata else ())]
    for numbers in forbidden:
        number = numbers[column]
        if number is not None:
            steps += [(EQUAL, 0, 1, number), refuse]
    # Report these as missing, so that callers use clone and openat, whose flags a filter can read.
    for numbers in (CLONE3, OPENAT2):
        steps += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    allowed = [(CLONE, (ANY_OF, 1, 0, CLONE_THREAD)), (TGKILL, (EQUAL, 1, 0, process))]
    allowed += [(numbers, (EQUAL, 1, 0, 0)) for numbers in OWN.values()]
    for numbers, test in allowed:
        steps += [(EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, ARGUMENT), test, refuse, (LOAD, 0, 0, NUMBER)]
    for numbers, argument, value in ARGUMENTS:
        steps += [(EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, ARGUMENT + 8 * argument), (EQUAL, 0, 1, value), refuse]
        steps += [(LOAD, 0, 0, NUMBER)]
    return [*steps, *_open_steps(column, refuse), (RETURN, 0, 0, ALLOW)]


def _open_steps(column: int, refuse: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """Return the instructions that forbid access mode 3, which allows truncation and changes of attributes."""
    steps = []
    for numbers, flags in ((OPEN, 1), (OPENAT, 2)):
        number = numbers[column]
        if number is not None:
            steps += [(EQUAL, 0, 5, number), (LOAD, 0, 0, ARGUMENT + 8 * flags)]
            steps += [(ANY_OF, 0, 2, os.O_WRONLY), (ANY_OF, 0, 1, os.O_RDWR), refuse, (LOAD, 0, 0, NUMBER)]
    return steps
