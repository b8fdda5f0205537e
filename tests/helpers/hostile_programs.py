"""Programs that attack the sandbox."""

RIGHT = "def f(x):\n    return 2 * x\n"
"""Correct program."""
TESTS = "assert f(2) == 4\nassert f(21) == 42\nassert f(2) * 10 == 40"
"""Tests of the correct program."""

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
    "answer before the question": "import json, os, struct\nafter = [{'list': [{'same': 1}, {'same': 2}]}, "
    "{'list': [2]}, {'dict': []}]\nanswers = ['ready', {'value': {'reference': 1}, 'after': []}]\n"
    "answers += [{'value': 4, 'after': after}] * 9\n"
    "text = b''.join(struct.pack('!I', len(json.dumps(a))) + json.dumps(a).encode() for a in answers)\n"
    "for fd in range(3, 256):\n    try:\n        os.write(fd, text)\n    except OSError:\n        pass\n"
    "import time\ntime.sleep(60)",
    "operators": "class Yes:\n    __hash__ = None\nfor name in ('eq', 'lt', 'le', 'gt', 'ge', 'sub', 'rsub', 'mul',"
    " 'rmul', 'contains', 'exit', 'abs', 'round', 'bool', 'len', 'float', 'int', 'index'):\n"
    "    setattr(Yes, f'__{name}__', lambda self, *given: given[0] if given else 1)\ndef f(x):\n    return Yes()",
    "the tests' value": "def f(x):\n    raise StopIteration(4)",
    "shared objects": """
import json, os, struct
answer = json.dumps({'value': {'same': 0}, 'after': [{'list': []}, {'list': []}, {'dict': []}]}).encode()
def f(x):
    for fd in range(3, 256):
        try:
            os.write(fd, struct.pack('!I', len(answer)) + answer)
        except OSError:
            pass
    return 4
""",
    "answer too much": "def f(x):\n    return 'a' * 2**25",
    "answer too deeply": "def f(x):\n    y = []\n    for _ in range(100000):\n        y = [y]\n    return y",
    "close everything": "import os\nos.closerange(0, 256)\n" + RIGHT,
    "crash": "import ctypes\nctypes.string_at(0)",
    "crash in the tests": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "recurse": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "bad source": "\x00",
    "deep source": "(" * 100_000,
}
"""Programs that try to pass tests without solving the task."""

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
"""Programs that use up time, memory or other resources."""


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
    "the parent's session": "os.getsid(PARENT)",
    "the parent's session as it is seen": "os.getsid(os.getppid() or 1)",
    "the parent's group, read": "os.getpgid(PARENT)",
    "the parent's priority": "os.getpriority(os.PRIO_PROCESS, PARENT)",
    "the parent's scheduler": "os.sched_getscheduler(PARENT)",
    "another user": "os.setuid(1 if os.getuid() != 1 else 2)",
    "a namespace": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == -1:\n    raise OSError",
    "other numbers": "import ctypes\nif ctypes.CDLL(None).syscall(0x40000000 + 57) == -1:\n    raise OSError",
    "clone3": "import ctypes\nif ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(88), 88) == -1:\n"
    "    raise OSError",
}
"""Attempts to start, signal or inspect other processes, by name; for `attempt`."""

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
"""Attempts to communicate; for `attempt`."""

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
"""Attempts to change files outside the sandbox; for `attempt`."""

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
"""Attempts to read files and memory outside the sandbox; for `attempt`."""
