"""Tests of the sandbox with hostile programs, under each isolation."""

import os
import socket
import time
from pathlib import Path

import pytest
from helpers.hostile_programs import BOMBS, FORGERIES, PROCESSES, READS, RIGHT, SOCKETS, TESTS, WRITES, attempt

from fireopd.verifiers.required_names import required_names
from fireopd.verifiers.sandbox import landlock
from fireopd.verifiers.workers import json_messages
from fireopd.verifiers.workers import pool as workers

LIMITS = {"cpu_seconds": 1, "memory_mib": 512, "disk_mib": 4, "output_kib": 64}


ANSWER_SECONDS = 300.0
"""Time limit of an answer: far above the limits of programs, which have to end them."""


def job(program, tests=TESTS, inputs=None, wall_seconds=10.0):
    """Return the messages of a job."""
    names = sorted(required_names(tests, ""))
    program = {"program": [program], "inputs": inputs, "limits": LIMITS, "wall_seconds": wall_seconds}
    return [program, {"prelude": "", "code": tests, "names": names}]


class Sandbox:
    """Worker process of a sandbox."""

    def __init__(self, isolation):
        self.isolation = isolation
        self.pool = workers.Pool("fireopd.verifiers.sandbox.supervisor", (isolation,), 1)
        assert self.pool.greeting() == isolation

    @property
    def process(self):
        return self.pool.idle.queue[0].process.pid

    def ask(self, program, tests, inputs=None, wall_seconds=10.0):
        answer = self.pool.ask(job(program, tests, inputs, wall_seconds), ANSWER_SECONDS)
        return answer and answer["answer"]

    def output(self, program, wall_seconds=10.0):
        """Return what a program writes; None if it fails."""
        answer = self.ask(program, "", inputs=[""], wall_seconds=wall_seconds)
        return answer and answer[0]

    def passes(self, program, wall_seconds=10.0):
        return self.ask(program, TESTS, wall_seconds=wall_seconds) is True


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def sandbox(request):
    try:
        return Sandbox(request.param)
    except workers.WorkerError:
        pytest.skip(f"this machine does not offer {request.param}")


@pytest.fixture(autouse=True)
def nothing_is_left(sandbox):
    """The trainer lives, and of each program no process and no file is left."""
    worker, files = sandbox.process, set(Path("/tmp").glob("fireopd-*"))
    yield
    assert sandbox.passes(RIGHT)
    wait_until(lambda: of_the_session(worker) <= {worker})
    wait_until(lambda: set(Path("/tmp").glob("fireopd-*")) <= files)  # other tests at the same time have folders too


def wait_until(condition):
    """Return when a condition is met; fail after five minutes."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def late(monkeypatch):
    """Workers that exceeded the time limit of an answer."""
    found, ask = [], workers.Worker.ask

    def recorded(worker, messages, seconds):
        try:
            return ask(worker, messages, seconds)
        except TimeoutError:
            found.append(worker)
            raise

    monkeypatch.setattr(workers.Worker, "ask", recorded)
    return found


def of_the_session(leader):
    """Return the ids of the processes of a session; programs cannot leave theirs."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


@pytest.mark.parametrize("name", FORGERIES)
def test_no_result_can_be_forged(sandbox, name):
    assert not sandbox.passes(FORGERIES[name], wall_seconds=5.0)


def test_no_program_hangs(sandbox, late):
    """Several at a time, so that sleeping ones do not add up. Limits end them, not the deadline of an answer."""
    pool = workers.Pool("fireopd.verifiers.sandbox.supervisor", (sandbox.isolation,), 4)
    tested = [job(bomb, wall_seconds=1.0) for bomb in BOMBS.values()]
    run = [job(BOMBS[name], inputs=[""], wall_seconds=1.0) for name in ("output", "a fork bomb")]
    computing = [job(BOMBS["a loop"], wall_seconds=ANSWER_SECONDS), job(BOMBS["a loop"], "", [""], ANSWER_SECONDS)]
    answers = pool.ask_all([*computing, *tested, *run], 2 * ANSWER_SECONDS)
    names = ["computing", "run: computing", *BOMBS, "run: output", "run: a fork bomb"]
    wrong = (None, {"answer": False}, {"answer": [None]})
    assert [name for name, answer in zip(names, answers, strict=True) if answer not in wrong] == []
    assert late == []
    for worker in pool.idle.queue:
        if worker is not None:
            wait_until(lambda leader=worker.process.pid: of_the_session(leader) == {leader})
            worker.close()


def test_a_program_that_waits_ends_when_its_time_is_over(sandbox, late):
    began = time.monotonic()
    assert not sandbox.passes("import time\ntime.sleep(1000)", wall_seconds=0.3)
    assert time.monotonic() - began >= 0.3
    assert late == []


@pytest.mark.parametrize("name", PROCESSES)
def test_there_are_no_other_processes(sandbox, name):
    program = attempt(PROCESSES[name], PARENT=os.getpid(), GROUP=os.getpgid(0))
    assert sandbox.output(program) in ("refused\n", None)


@pytest.mark.parametrize("name", SOCKETS)
def test_there_is_no_network(sandbox, name, tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        local.bind(str(tmp_path / "socket"))
        local.listen()
        own = f"fireopd-{os.getpid()}-{sandbox.isolation}"
        abstract.bind("\0" + own)
        abstract.listen()
        datagrams.bind("\0" + own + "-datagrams")
        settings = {"PORT": server.getsockname()[1], "PATH": str(tmp_path / "socket"), "NAME": own}
        assert sandbox.output(attempt(SOCKETS[name], **settings)) == "refused\n"


@pytest.mark.parametrize("name", WRITES)
def test_nothing_outside_is_written(sandbox, name, tmp_path):
    tmp_path.chmod(0o777)
    old = tmp_path / "old"
    old.write_text("as it was")
    old.chmod(0o666)
    before = old.stat()
    output = sandbox.output(attempt(WRITES[name], PLACE=str(tmp_path)))
    # With namespaces, the root belongs to the sandbox process alone.
    assert output == "refused\n"
    assert os.listdir(tmp_path) == ["old"]
    assert old.read_text() == "as it was"
    assert (old.stat().st_mode, old.stat().st_mtime, old.stat().st_uid) == (
        before.st_mode,
        before.st_mtime,
        before.st_uid,
    )


@pytest.mark.parametrize("name", READS)
def test_nothing_outside_is_read(sandbox, name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    program = attempt(READS[name], PARENT=os.getpid(), SECRET=str(secret))
    assert sandbox.output(program) == "refused\n"


@pytest.mark.parametrize("flags", [0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC])
def test_a_pair_of_streams_is_a_programs_own(sandbox, flags):
    """It connects threads with one another, and asyncio with itself."""
    body = "one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | FLAGS)\none.sendall(b'x')\ntwo.recv(1)"
    assert sandbox.output(attempt(body, FLAGS=int(flags))) == "done\n"


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_landlock_that_does_not_keep_files_from_being_cut_short_does_not_count(known, monkeypatch):
    def call(name, number, *arguments):
        assert arguments == (None, 0, 1), "only the version is queried"
        return known

    monkeypatch.setattr(landlock.syscalls, "call", call)
    with pytest.raises(OSError, match="Landlock is missing or cannot prevent the truncation of files"):
        landlock.restrict()


def test_a_program_knows_no_variables_but_its_own(sandbox, monkeypatch):
    monkeypatch.setenv("FIREOPD_SECRET", "secret")
    known = sandbox.output("import os\nprint(*sorted(os.environ))").split()
    assert known == ["HOME", "LANG", "PATH", "TMPDIR"]
    in_memory = "import ctypes\nenviron = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), 'environ')\ni = 0\n"
    in_memory += "while environ and environ[i]:\n    print(environ[i])\n    i += 1"
    assert "secret" not in sandbox.output(in_memory)


def test_a_programs_own_folder_is_small_and_empty(sandbox):
    fill = "import os\nif EMPTY:\n    print(os.listdir('.'))\nn = 0\ntry:\n    while True:\n        n += 1\n"
    fill += "        open(f'{n}', 'wb').write(bytes(2**20))\nexcept OSError:\n    print(n)"
    writable = sandbox.isolation == "namespaces"
    for _ in range(2):
        output = sandbox.output(f"EMPTY = {writable}\n{fill}").split()
        assert output[:-1] == ["[]"] * writable
        assert int(output[-1]) == (LIMITS["disk_mib"] + 1 if writable else 1)
    many = "n = 0\ntry:\n    while n < 10000:\n        n += 1\n        open(str(n), 'w').close()\nexcept OSError:\n"
    many += "    print(n)"
    assert int(sandbox.output(many)) <= 4096


def test_the_tests_are_out_of_the_programs_sight(sandbox):
    """Not even a copy of them is in the memory of the program's process."""
    search = """
import gc, sys
def f(x):
    word = "".join(["open", "-", "sesame"])
    frame, holders = sys._getframe().f_back, gc.get_objects()
    while frame:
        holders += [frame.f_locals, *frame.f_locals.values()]
        frame = frame.f_back
    for holder in holders:
        for held in [holder, *gc.get_referents(holder)]:
            if type(held) is bytes:
                held = held.decode("latin1")
            if type(held) is str and word in held:
                return "found"
    return "nothing"
"""
    assert sandbox.ask(search, "assert f(1) == 'nothing'  # open-sesame") is True
    assert sandbox.ask(search + "\nkept = 'open-sesame'", "assert f(1) == 'found'") is True


def test_a_sandbox_process_ends_with_its_worker(sandbox):
    pool = workers.Pool("fireopd.verifiers.sandbox.supervisor", (sandbox.isolation,), 1)
    pool.greeting()
    worker = pool.idle.queue[0]
    for message in job("import time\ntime.sleep(1000)", wall_seconds=ANSWER_SECONDS):
        json_messages.send(worker.channel, message)
    wait_until(lambda: len(of_the_session(worker.process.pid)) >= 3)
    worker.close()
    wait_until(lambda: not of_the_session(worker.process.pid))
