"""A jail: the process of one program and the process that tests it, with nothing around them.

Both have given up all privileges before the program starts. The program's process ends with the tester's, which in
namespaces is the first of its world: nothing outlives it.
"""

import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from fireopd.verifiers.sandbox import landlock, namespaces, program_runner, seccomp, syscalls, test_runner
from fireopd.verifiers.workers import json_messages

OPEN_FILES, THREADS = 64, 64
MIB, KIB = 2**20, 2**10


@dataclass(frozen=True)
class Jail:
    """What holds for a program."""

    isolation: str
    """`namespaces`, `landlock`, or `none` but limits."""
    user: int
    """User id that it runs under, in namespaces."""
    limits: dict[str, int]
    """`cpu_seconds`, `memory_mib`, `disk_mib`, `output_kib`."""

    def hold(self, channel: socket.socket, job: dict[str, Any]) -> Any:
        """Run and test a program in this process and one more; return what came of it.

        Args:
            channel: where the tests come from; nobody has read them before the program's process exists.
            job: "program", its source; "inputs", for each of which it is run, or None to test what it defines.

        Returns:
            bool, whether the tests pass; or for each input what was written, None where the program failed.
        """
        self._lock()
        if job["inputs"] is None:
            return self._test(channel, job["program"])
        json_messages.receive(channel)
        return [self._run(job["program"], content) for content in job["inputs"]]

    def _lock(self) -> None:
        """Give up everything but the system calls that are still needed."""
        if self.isolation == "namespaces":
            namespaces.furnish(self.limits["disk_mib"] * MIB, self.user)
            if self.user != os.getuid():
                os.setgroups([])
                os.setresgid(self.user, self.user, self.user)
                os.setresuid(self.user, self.user, self.user)
        syscalls.drop_capabilities()
        if self.isolation == "landlock":
            landlock.restrict()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # the program's process cannot open the memory of this one
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)

    def _confine(self) -> None:
        """Set the limits of this process, and close the kernel's doors: the last before foreign code runs."""
        bounds = {
            resource.RLIMIT_AS: self.limits["memory_mib"] * MIB,
            resource.RLIMIT_CPU: self.limits["cpu_seconds"],
            resource.RLIMIT_FSIZE: self.limits["disk_mib"] * MIB,
            resource.RLIMIT_NOFILE: OPEN_FILES,
            resource.RLIMIT_CORE: 0,
        }
        if self.isolation == "namespaces":
            bounds[resource.RLIMIT_NPROC] = THREADS  # elsewhere, all that the user runs would count
        for kind, bound in bounds.items():
            resource.setrlimit(kind, (bound, bound))
        with suppress(OSError) if self.isolation == "none" else nullcontext():
            seccomp.restrict(metadata=self.isolation != "namespaces")

    def _test(self, channel: socket.socket, program: str) -> bool:
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        self._start(lambda: program_runner.serve(program, theirs), null, null, theirs.fileno())
        theirs.close()
        tests = json_messages.receive(channel)
        self._confine()
        return test_runner.passes(tests, ours)  # the program's process ends with this one

    def _run(self, program: str, content: str) -> str | None:
        """Return what the program writes for an input; None if it fails or writes too much."""
        given, (read, write) = os.memfd_create("input"), os.pipe()
        os.write(given, content.encode())
        os.lseek(given, 0, os.SEEK_SET)
        process = self._start(lambda: program_runner.run(program), given, write, None)
        os.close(write)
        os.close(given)
        limit, parts, size = self.limits["output_kib"] * KIB, [], 0
        while size <= limit and (part := os.read(read, 65536)):
            parts.append(part)
            size += len(part)
        os.close(read)
        if size > limit:
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        return b"".join(parts).decode(errors="replace") if status == 0 else None

    def _start(self, program: Callable[[], NoReturn], given: int, written: int, kept: int | None) -> int:
        """Return the id of a new process that runs a program, with these descriptors and no others."""
        process = os.fork()
        if process:
            return process
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(given, 0)
            os.dup2(written, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            last = 2 if kept is None else kept
            os.closerange(3, last)
            os.closerange(last + 1, 65536)
            os.environ.clear()
            os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd(), PATH=os.defpath, LANG="C.UTF-8")
            self._confine()
            program()
        finally:
            os._exit(1)
