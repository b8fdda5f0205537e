"""Process in which a program runs. When the program starts, the process contains neither tests nor results."""

import builtins
import itertools
import os
import socket
import sys
import threading
import types
from typing import Any, NoReturn

from fireopd.verifiers.sandbox import value_codec
from fireopd.verifiers.workers import json_messages

__all__ = ["ObjectTable", "execute", "run", "serve"]


def execute(source: str, name: str) -> dict[str, Any]:
    """Run a program as a module with a name and return its globals."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["program.py"]
    exec(compile(source, "program.py", "exec"), module.__dict__)
    return module.__dict__


def run(source: str) -> NoReturn:
    """Run a program with standard input and output, and exit like the interpreter."""
    _open_standard_files()
    code = 1
    try:
        execute(source, "__main__")
        code = 0
    except SystemExit as end:
        code = 0 if end.code in (None, 0) else 1
    except BaseException:
        code = 1
    finally:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        sys.stdout.flush()
        os._exit(code)


def serve(source: str, channel: socket.socket) -> NoReturn:
    """Run a program, then answer requests of the tests on the objects that it defines."""
    _open_standard_files()
    sys.set_int_max_str_digits(0)
    try:
        names = execute(source, "program")
        objects = ObjectTable(names)
        json_messages.send(channel, "ready")
        while True:
            json_messages.send(channel, objects.answer(json_messages.receive(channel)))
    finally:
        os._exit(1)


def _open_standard_files() -> None:
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


class ObjectTable:
    """Objects of the program that tests refer to by number."""

    def __init__(self, names: dict[str, Any]) -> None:
        """Store the globals of the program."""
        self.names = names
        self.next_number = itertools.count()
        self.objects: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a request, or the exception that it raised, as JSON."""
        try:
            return self._do(**request)
        except BaseException as error:
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == builtins.__name__)
            return {"raised": kind.__name__, "message": str(error)[:1000]}

    def _do(self, action: str, number: int = 0, parts: Any = None) -> dict[str, Any]:
        if action == "find":
            value = self.names.get(parts)
            if parts not in self.names or isinstance(value, types.ModuleType):
                raise NameError(parts)
            return {"value": self._encode(value)}
        subject = self.objects[number]
        argument = value_codec.decode(parts, self.objects.__getitem__)
        if action == "call":
            arguments, named = argument
            result = subject(*arguments, **named)
            after = value_codec.argument_values(arguments, named)
            return {"value": self._encode(result), "after": [self._encode(value) for value in after]}
        actions = {
            "attribute": lambda: getattr(subject, argument),
            "item": lambda: subject[argument],
            "length": lambda: len(subject),
            "truth": lambda: bool(subject),
            "text": lambda: str(subject),
            "iterate": lambda: iter(subject),
            "next": lambda: next(subject),
        }
        return {"value": self._encode(actions[action]())}

    def _encode(self, value: Any) -> Any:
        return value_codec.encode(value, self._refer)

    def _refer(self, value: Any) -> int:
        if id(value) not in self.numbers:
            self.numbers[id(value)] = next(self.next_number)
            self.objects[self.numbers[id(value)]] = value
        return self.numbers[id(value)]
