"""The sandbox: hostile programs do nothing, leave nothing, forge nothing, and harm nobody, under each isolation."""

import os
import socket
import time
from pathlib import Path

import pytest

from fireopd.verifiers.sandbox import landlock
from fireopd.verifiers.workers import pool as workers

LIMITS = {"cpu_seconds": 1, "memory_mib": 512, "disk_mib": 4, "output_kib": 64}
RIGHT = "def f(x):\n    return 2 * x\n"
TESTS = "assert f(2) == 4\nassert f(21) == 42\nassert f(2) * 10 == 40"


class Sandbox:
    """The worker process of a sandbox."""

    def __init__(self, isolation):
        self.isolation = isolation
        self.pool = workers.Pool("fireopd.verifiers.sandbox.supervisor", (isolation,), 1)
        assert self.pool.greeting() == isolation

    @property
    def process(self):
        return self.pool.idle.queue[0].process.pid

    def ask(self, program, tests, inputs=None, wall_seconds=10.0):
        job = {"program": program, "inputs": inputs, "limits": LIMITS, "wall_seconds": wall_seconds}
        tests = {"prelude": None, "code": tests, "entry_point": None}
        answer = self.pool.ask([job, tests], wall_seconds + 30)
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
    deadline = time.monotonic() + 5
    while left := of_the_session(worker) - {worker}:
        assert time.monotonic() < deadline, f"processes that are left: {left}"
        time.sleep(0.02)
    assert set(Path("/tmp").glob("fireopd-*")) <= files


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


FORGERIES = {
    "exit before the tests": "import os\nos._exit(0)",
    "exit politely": "import sys\nsys.exit(0)",
    "exit in the tests": "import os\ndef f(x):\n    os._exit(0)",
    "raise in the tests": "def f(x):\n    raise SystemExit(0)",
    "equal everything": "class Yes:\n    __eq__ = __le__ = __ge__ = lambda self, other: True\n    __hash__ = None\n"
    "    __mul__ = __getattr__ = __call__ = lambda self, *given: self\ndef f(x):\n    return Yes()",
    "equal everything as a number": "class Yes(int):\n    __eq__ = lambda self, other: True\n"
    "    __mul__ = lambda self, other: self\ndef f(x):\n    return Yes(0)",
    "patch builtins": "import builtins\nbuiltins.AssertionError = builtins.compile = builtins.exec = lambda *x: None\n"
    "def f(x):\n    return 0",
    "patch the harness": "import sys\nfor name, module in list(sys.modules.items()):\n"
    "    if 'sandbox' in name or name == 'json':\n        for key, value in list(vars(module).items()):\n"
    "            if callable(value):\n                setattr(module, key, lambda *a, **k: True)\n"
    "def f(x):\n    return 0",
    "write answers": "import os, struct\n"
    "for kind in (b'{\"answer\": true}', b'true', b'\"ready\"', b'{\"value\": 4}'):\n"
    "    for fd in range(256):\n        for text in (kind, struct.pack('!I', len(kind)) + kind):\n"
    "            try:\n                os.write(fd, text)\n            except OSError:\n                pass\n",
    "answer before the question": 'import os, struct\nkind = b\'{"value": 4, "after": [2]}\'\n'
    "for fd in range(3, 256):\n    try:\n        os.write(fd, (struct.pack('!I', 7) + b'\"ready\"') +"
    " (struct.pack('!I', len(kind)) + kind) * 9)\n    except OSError:\n        pass\nimport time\ntime.sleep(60)",
    "answer too much": "def f(x):\n    return 'a' * 2**25",
    "answer too deeply": "def f(x):\n    y = []\n    for _ in range(100000):\n        y = [y]\n    return y",
    "close everything": "import os\nos.closerange(0, 256)\n" + RIGHT,
    "crash": "import ctypes\nctypes.string_at(0)",
    "crash in the tests": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "recurse": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "bad source": "\x00",
    "deep source": "(" * 100_000,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_no_result_can_be_forged(sandbox, name):
    assert not sandbox.passes(FORGERIES[name], wall_seconds=5.0)


BOMBS = {
    "a loop": "while True:\n    pass",
    "a loop in the tests": "def f(x):\n    while True:\n        pass",
    "a sleep": "import time\ntime.sleep(1000)",
    "a loop that catches signals": "import signal\nfor number in range(1, 65):\n    try:\n"
    "        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
    "while True:\n    try:\n        pass\n    except BaseException:\n        pass",
    "a fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "memory": "held = []\nwhile True:\n    held.append(bytearray(2**24))",
    "memory that catches": "held = []\nwhile True:\n    try:\n        held.append(bytearray(2**20))\n"
    "    except MemoryError:\n        pass",
    "a big number": "def f(x):\n    return 10 ** 10 ** 10",
    "output": "while True:\n    print('flood' * 1000)",
    "errors": "import sys\nwhile True:\n    print('flood' * 1000, file=sys.stderr)",
    "threads": "import threading, time\nwhile True:\n    try:\n"
    "        threading.Thread(target=time.sleep, args=[99]).start()\n    except RuntimeError:\n        pass",
    "descriptors": "import os\nwhile True:\n    os.pipe()",
    "a regular expression": "import re\nre.match('(a*)*b', 'a' * 50)",
}


def test_no_program_hangs(sandbox):
    """Several at a time, so that sleeping ones do not add up."""
    pool = workers.Pool("fireopd.verifiers.sandbox.supervisor", (sandbox.isolation,), 4)
    limits = {"limits": LIMITS, "wall_seconds": 3.0}
    tested = [{"program": bomb, "inputs": None} | limits for bomb in BOMBS.values()]
    run = [{"program": BOMBS[name], "inputs": [""]} | limits for name in ("a loop", "output", "a fork bomb")]
    began = time.monotonic()
    answers = pool.ask_all([[job, {"prelude": None, "code": TESTS, "entry_point": None}] for job in tested + run], 30)
    assert time.monotonic() - began < 40
    names = [*BOMBS, "run: a loop", "run: output", "run: a fork bomb"]
    wrong = (None, {"answer": False}, {"answer": [None]})
    assert [name for name, answer in zip(names, answers, strict=True) if answer not in wrong] == []
    for worker in pool.idle.queue:
        if worker is not None:
            assert of_the_session(worker.process.pid) == {worker.process.pid}
            worker.close()


def test_a_program_that_waits_ends_when_its_time_is_over(sandbox):
    began = time.monotonic()
    assert not sandbox.passes("import time\ntime.sleep(1000)", wall_seconds=0.5)
    assert 0.5 <= time.monotonic() - began < 5


def attempt(body, **names):
    """Return a program that writes "done" if a body of code raises nothing, and else the kind of error."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    settings = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    end = "    print('done')\nexcept Exception:\n    print('refused')"
    return f"import os, socket, sys\n{settings}try:\n{lines}\n{end}"


PROCESSES = {
    "fork": "os.fork()",
    "daemon": "if os.fork() == 0:\n    os.setsid()\n    os.fork()",
    "system": "if os.system('touch x') != 0:\n    raise OSError",
    "subprocess": "import subprocess\nsubprocess.run(['/usr/bin/true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'echo done'])",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "session": "os.setsid()",
    "the parent": "os.kill(PARENT, 9)",
    "the parent as it is seen": "os.kill(os.getppid(), 9)",
    "the first": "os.kill(1, 9)",
    "the group": "os.killpg(0, 9)",
    "the parent's group": "os.killpg(GROUP, 9)",
    "everybody": "os.kill(-1, 9)",
    "by a thread's id": "import ctypes\nif ctypes.CDLL(None).syscall(200, PARENT, 9) or True:\n"
    "    ctypes.CDLL(None).syscall(234, PARENT, PARENT, 9)\n    raise OSError",
    "by a file": "import fcntl\nfcntl.fcntl(0, fcntl.F_SETOWN, PARENT)",
    "by limits": "import resource\nresource.prlimit(PARENT, resource.RLIMIT_CPU, (1, 1))",
    "own limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
    "by descriptor": "os.pidfd_open(os.getppid())",
    "by tracing": "import ctypes\nif ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == -1:\n    raise OSError",
    "outlive": "import ctypes\nif ctypes.CDLL(None).prctl(1, 0) == -1:\n    raise OSError",
    "become somebody": "os.setuid(1 if os.getuid() != 1 else 2)",
    "a namespace": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == -1:\n    raise OSError",
    "other numbers": "import ctypes\nif ctypes.CDLL(None).syscall(0x40000000 + 57) == -1:\n    raise OSError",
    "clone3": "import ctypes\nif ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(88), 88) == -1:\n"
    "    raise OSError",
}


@pytest.mark.parametrize("name", PROCESSES)
def test_there_are_no_other_processes(sandbox, name):
    program = attempt(PROCESSES[name], PARENT=os.getpid(), GROUP=os.getpgid(0))
    assert sandbox.output(program) in ("refused\n", None)


SOCKETS = {
    "here": "socket.create_connection(('127.0.0.1', PORT), timeout=2)",
    "here, by version 6": "socket.socket(socket.AF_INET6).connect(('::1', PORT))",
    "elsewhere": "socket.create_connection(('1.1.1.1', 53), timeout=2)",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "a path": "socket.socket(socket.AF_UNIX).connect(PATH)",
    "an abstract name": "socket.socket(socket.AF_UNIX).connect('\\0' + NAME)",
    "a server": "socket.create_server(('127.0.0.1', 0))",
    "raw": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "a pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '\\0' + NAME + '-datagrams')",
    "a raw pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW | socket.SOCK_NONBLOCK)[0].sendto("
    "b'x', '\\0' + NAME + '-datagrams')",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
}


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


WRITES = {
    "a file": "open(PLACE + '/new', 'w').write('x')",
    "into a file": "open(PLACE + '/old', 'a').write('x')",
    "a folder": "os.mkdir(PLACE + '/new')",
    "cut short": "os.truncate(PLACE + '/old', 0)",
    "remove": "os.remove(PLACE + '/old')",
    "rename": "os.rename(PLACE + '/old', PLACE + '/new')",
    "rights": "os.chmod(PLACE + '/old', 0)",
    "times": "os.utime(PLACE + '/old', (0, 0))",
    "owner": "os.chown(PLACE + '/old', 1, 1)",
    "a link": "os.symlink(PLACE + '/old', 'link')\nopen('link', 'a').write('x')",
    "a hard link": "os.link(PLACE + '/old', PLACE + '/new')",
    "by the parent folder": "open('../../../../../../..' + PLACE + '/new', 'w').write('x')",
    "by another root": "open('/proc/1/root' + PLACE + '/new', 'w').write('x')",
    "Python itself": "open(os.__file__, 'a').write('x')",
    "the root": "open('/new', 'w').write('x')",
    "shared memory": "open('/dev/shm/new', 'w').write('x')",
    "a device": "os.mknod(PLACE + '/new', 0o60666, 0x800)",
    "the disk": "open('/dev/vda', 'r+b')",
    "cut short by a mode": "os.open(PLACE + '/old', 3 | os.O_TRUNC)",
    "attributes by a mode": "os.open(PLACE + '/old', 3)",
    "by a call with a structure": "import ctypes, struct\n"
    "if ctypes.CDLL(None).syscall(437, -100, (PLACE + '/old').encode(), struct.pack('QQQ', 3, 0, 0), 24) == -1:\n"
    "    raise OSError",
    "a kernel setting": "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')",
}


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


READS = {
    "passwords": "open('/etc/shadow').read()",
    "users": "open('/etc/passwd').read()",
    "by a link": "os.symlink('/etc/passwd', 'link')\nopen('link').read()",
    "the data": "open(SECRET).read()",
    "the parent's variables": "open(f'/proc/{PARENT}/environ', 'rb').read()",
    "the parent's variables as it is seen": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "the tester's memory": "open(f'/proc/{os.getppid()}/mem', 'rb').read(0)",
    "the tester's descriptors": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "all processes": "os.listdir('/proc/self')",
    "home": "os.listdir('/root') if os.listdir('/home') is None else None",
    "memory by a call": "import ctypes\nif ctypes.CDLL(None).syscall(310, os.getppid(), 0, 0, 0, 0, 0) == -1:\n"
    "    raise OSError",
}


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
        assert arguments == (None, 0, 1), "nothing but its version is asked for"
        return known

    monkeypatch.setattr(landlock.syscalls, "call", call)
    with pytest.raises(OSError, match="no Landlock that keeps files from being cut short"):
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
    job = {"program": "import time\ntime.sleep(1000)", "inputs": None, "limits": LIMITS, "wall_seconds": 60.0}
    with pytest.raises(TimeoutError):
        worker.ask([job, {"prelude": None, "code": TESTS, "entry_point": None}], 1.0)
    assert len(of_the_session(worker.process.pid)) >= 3
    worker.close()
    deadline = time.monotonic() + 5
    while of_the_session(worker.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
