"""Sandbox process of one program: it tests the program, which runs in a child process.

Both processes drop all privileges before the program starts. The program's process ends with the sandbox process, which
is the first process of its PID namespace (with `namespaces`), so that no process outlives it.
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

__all__ = ["KIB", "MIB", "OPEN_FILES", "THREADS", "SandboxProcess"]

OPEN_FILES, THREADS = 64, 64
"""Limits of a program."""
MIB, KIB = 2**20, 2**10


@dataclass(frozen=True)
class SandboxProcess:
    """Isolation and limits of a program."""

    isolation: str
    """`namespaces`, `landlock`, or `none` (limits only)."""
    user: int
    """User id of the program, with `namespaces`."""
    limits: dict[str, int]
    """`cpu_seconds`, `memory_mib`, `disk_mib`, `output_kib`."""

    def execute(self, channel: socket.socket, job: dict[str, Any]) -> Any:
        """Run and test a program, in this process and a child process.

        Args:
            channel: connection that provides the tests; they are read only after the program's process has started.
            job: "program", the parts of the source; "inputs", the standard inputs to run it with, or None to run tests
                on it.

        Returns:
            bool, True if the tests pass, or text if they need an unsupported operation; or the output for each input,
            None if the program failed.
        """
        self._isolate()
        if job["inputs"] is None:
            return self._test(channel, job["program"])
        json_messages.receive(channel)
        return [self._run(job["program"], content) for content in job["inputs"]]

    def _isolate(self) -> None:
        """Drop privileges and access to the file system; keep the system calls that are still needed."""
        if self.isolation == "namespaces":
            namespaces.mount_home(self.limits["disk_mib"] * MIB, self.user)
            if self.user != os.getuid():
                os.setgroups([])
                os.setresgid(self.user, self.user, self.user)
                os.setresuid(self.user, self.user, self.user)
        syscalls.drop_capabilities()
        if self.isolation == "landlock":
            landlock.restrict()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # protects this memory from the program's process
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)

    def _restrict(self) -> None:
        """Set the resource limits and the system call filter of this process, right before untrusted code runs."""
        bounds = {
            resource.RLIMIT_AS: self.limits["memory_mib"] * MIB,
            resource.RLIMIT_CPU: self.limits["cpu_seconds"],
            resource.RLIMIT_FSIZE: self.limits["disk_mib"] * MIB,
            resource.RLIMIT_NOFILE: OPEN_FILES,
            resource.RLIMIT_CORE: 0,
        }
        if self.isolation == "namespaces":
            bounds[resource.RLIMIT_NPROC] = THREADS  # otherwise all processes of the user count
        for kind, bound in bounds.items():
            resource.setrlimit(kind, (bound, bound))
        with suppress(OSError) if self.isolation == "none" else nullcontext():
            seccomp.restrict(metadata=self.isolation != "namespaces")

    def _test(self, channel: socket.socket, program: list[str]) -> bool | str:
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        self._start(lambda: program_runner.serve(program, theirs), null, null, theirs.fileno())
        theirs.close()
        tests = json_messages.receive(channel)
        self._restrict()
        return test_runner.passes(tests, ours)  # the program's process ends with this one

    def _run(self, program: list[str], content: str) -> str | None:
        """Return the output of the program for an input; None if it fails or its output is too large."""
        stdin, (read, write) = os.memfd_create("input"), os.pipe()
        os.write(stdin, content.encode(errors="surrogateescape"))
        os.lseek(stdin, 0, os.SEEK_SET)
        process = self._start(lambda: program_runner.run(program), stdin, write, None)
        os.close(write)
        os.close(stdin)
        limit, parts, size = self.limits["output_kib"] * KIB, [], 0
        while size <= limit and (part := os.read(read, 65536)):
            parts.append(part)
            size += len(part)
        os.close(read)
        if size > limit:
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        return b"".join(parts).decode(errors="surrogateescape") if status == 0 else None

    def _start(self, program: Callable[[], NoReturn], stdin: int, stdout: int, kept: int | None) -> int:
        """Start a process that runs a program with only these file descriptors, and return its id."""
        process = os.fork()
        if process:
            return process
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            last = 2 if kept is None else kept
            os.closerange(3, last)
            os.closerange(last + 1, 65536)
            os.environ.clear()
            os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd(), PATH=os.defpath, LANG="C.UTF-8")
            self._restrict()
            program()
        finally:
            os._exit(1)
