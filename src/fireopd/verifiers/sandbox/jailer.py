"""The worker process that has programs run: it locks itself in as well as the machine allows, then makes jails.

It is the only process that knows both the jails and the trainer, and it runs nothing of a program's. A program's tests
pass it by: the jail reads them from the channel itself.
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
from fireopd.verifiers.sandbox.jail import Jail
from fireopd.verifiers.workers import json_messages

PROBE = {
    "program": "def double(x):\n    return 2 * x\n",
    "inputs": None,
    "limits": {"cpu_seconds": 10, "memory_mib": 1024, "disk_mib": 1, "output_kib": 1},
    "wall_seconds": 20.0,
}
PROBE_TESTS = {"prelude": None, "code": "assert double(2) == 4", "entry_point": None}


def work(channel: socket.socket, isolations: Sequence[str]) -> None:
    """Answer pairs of a job and its tests until the channel ends, under the first isolation that works here.

    Raises:
        SystemExit: if none works.
    """
    os.umask(0o022)
    isolation = next((name for name in isolations if works(name)), None)
    if isolation is None:
        raise SystemExit(f"none of {', '.join(isolations)} works here")
    user_map = enter(isolation)
    json_messages.send(channel, isolation)
    while True:
        try:
            job = json_messages.receive(channel)
        except EOFError:
            return
        answer = answered(channel, job, isolation, user_map)
        if answer is None:
            return  # its tests may still be in the channel
        json_messages.send(channel, answer)


def works(isolation: str) -> bool:
    """Return whether a program can be run and tested under an isolation; nothing of this process changes."""
    process = os.fork()
    if process == 0:
        ours, theirs = socket.socketpair()
        passed = False
        try:
            json_messages.send(ours, PROBE_TESTS)
            passed = answered(theirs, PROBE, isolation, enter(isolation)) == {"answer": True}
        finally:
            os._exit(0 if passed else 1)
    return os.waitpid(process, 0)[1] == 0


def enter(isolation: str) -> str:
    """Leave the machine's network and files for good, in namespaces; return the map of user ids.

    Raises:
        OSError: if the machine does not allow it.
        ValueError: if there is no such isolation.
    """
    if isolation not in ("namespaces", "landlock", "none"):
        raise ValueError(isolation)
    return namespaces.enter() if isolation == "namespaces" else ""


def answered(channel: socket.socket, job: dict[str, Any], isolation: str, user_map: str) -> dict[str, Any] | None:
    """Return what came of a job, {"answer": ...}; None if its time was over or its jail broke."""
    read, write = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        code = 1
        try:
            os.close(read)
            code = keep(channel, job, isolation, user_map, write)
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        content = file.read(json_messages.LONGEST + 1)
    _, status = os.waitpid(keeper, 0)
    return {"answer": json.loads(content)} if status == 0 and len(content) <= json_messages.LONGEST else None


def keep(channel: socket.socket, job: dict[str, Any], isolation: str, user_map: str, write: int) -> int:
    """Be the parent of a jail, and end it when its time is over; return 0 if an answer was written."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    user, folder = 0, None
    if isolation == "namespaces":
        user = namespaces.spare_user(user_map, os.getpid())
        namespaces.part()
    elif isolation == "none":  # by Landlock, a program can write in no folder
        folder = tempfile.mkdtemp(prefix="fireopd-")
        os.chdir(folder)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            answer = Jail(isolation, user, job["limits"]).hold(channel, job)
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
