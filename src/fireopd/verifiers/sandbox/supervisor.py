"""Worker process that isolates itself as far as the machine supports it and runs programs in sandbox processes.

It is the only process that is connected to both the trainer and the sandbox processes, and it runs no untrusted code.
It does not read the tests of a program: the sandbox process reads them from the channel.
"""

import json
import os
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

from fireopd.verifiers.sandbox import namespaces, syscalls
from fireopd.verifiers.sandbox.sandbox_process import SandboxProcess
from fireopd.verifiers.workers import json_messages

__all__ = ["PROBE", "PROBE_TESTS", "enter", "is_supported", "run_job", "supervise", "work"]

PROBE = {
    "program": ["def double(x):\n    return 2 * x\n"],
    "inputs": None,
    "limits": {"cpu_seconds": 10, "memory_mib": 1024, "disk_mib": 1, "output_kib": 1},
    "wall_seconds": 20.0,
}
PROBE_TESTS = {"prelude": "", "code": "assert double(2) == 4", "names": ["double"]}


def work(channel: socket.socket, isolations: Sequence[str]) -> None:
    """Answer pairs of a job and its tests until the channel is closed, with the first supported isolation.

    Raises:
        SystemExit: if no isolation is supported.
    """
    os.umask(0o022)
    isolation = next((name for name in isolations if is_supported(name)), None)
    if isolation is None:
        raise SystemExit(f"this machine supports no isolation of {', '.join(isolations)}")
    user_map = enter(isolation)
    json_messages.send(channel, isolation)
    while True:
        try:
            job = json_messages.receive(channel)
        except EOFError:
            return
        answer = run_job(channel, job, isolation, user_map)
        if answer is None:
            return  # the channel may still contain the tests
        json_messages.send(channel, answer)


def is_supported(isolation: str) -> bool:
    """Return True if a program can be run and tested with an isolation. Runs in a child process."""
    process = os.fork()
    if process == 0:
        ours, theirs = socket.socketpair()
        passed = False
        try:
            json_messages.send(ours, PROBE_TESTS)
            passed = run_job(theirs, PROBE, isolation, enter(isolation)) == {"answer": True}
        finally:
            os._exit(0 if passed else 1)
    return os.waitpid(process, 0)[1] == 0


def enter(isolation: str) -> str:
    """Isolate this process permanently and return the user id map; does nothing unless `isolation` is `namespaces`.

    Raises:
        OSError: if the machine does not allow it.
        ValueError: if the isolation is unknown.
    """
    if isolation not in ("namespaces", "landlock", "none"):
        raise ValueError(isolation)
    return namespaces.enter() if isolation == "namespaces" else ""


def run_job(channel: socket.socket, job: dict[str, Any], isolation: str, user_map: str) -> dict[str, Any] | None:
    """Return the result of a job, {"answer": ...}; None if it timed out or its sandbox process crashed."""
    read, write = os.pipe()
    monitor = os.fork()
    if monitor == 0:
        code = 1
        try:
            os.close(read)
            code = supervise(channel, job, isolation, user_map, write)
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        content = file.read(json_messages.LONGEST + 1)
    _, status = os.waitpid(monitor, 0)
    return {"answer": json.loads(content)} if status == 0 and len(content) <= json_messages.LONGEST else None


def supervise(channel: socket.socket, job: dict[str, Any], isolation: str, user_map: str, write: int) -> int:
    """Start a sandbox process and kill it at the time limit; return 0 if an answer was written."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    user, folder = 0, None
    if isolation == "namespaces":
        user = namespaces.unused_user(user_map, os.getpid())
        namespaces.unshare_processes()
    elif isolation == "none":  # Landlock allows no writes
        folder = tempfile.mkdtemp(prefix="fireopd-")
        os.chdir(folder)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            answer = SandboxProcess(isolation, user, job["limits"]).execute(channel, job)
            with os.fdopen(write, "wb") as file:
                file.write(json.dumps(answer).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    poll = select.poll()
    poll.register(os.pidfd_open(process), select.POLLIN)
    if not poll.poll(job["wall_seconds"] * 1000):
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if status == 0 else 1
