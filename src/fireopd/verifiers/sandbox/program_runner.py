"""Process in which a program runs. When the program starts, the process contains neither tests nor results."""

import asyncio
import builtins
import copy
import operator
import os
import socket
import sys
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fireopd.verifiers.sandbox import value_codec
from fireopd.verifiers.sandbox.remote_objects import FUNCTIONS
from fireopd.verifiers.sandbox.value_codec import Sharing
from fireopd.verifiers.workers import json_messages

__all__ = ["ObjectTable", "execute", "run", "serve"]


def execute(sources: Sequence[str], name: str) -> dict[str, Any]:
    """Run the parts of a program as a module with a name and return its globals."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["program.py"]
    for source in sources:
        exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def run(sources: Sequence[str]) -> NoReturn:
    """Run a program with standard input and output, and exit like the interpreter."""
    _open_standard_files()
    code = 1
    try:
        execute(sources, "__main__")
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


def serve(sources: Sequence[str], channel: socket.socket) -> NoReturn:
    """Run a program, then answer requests of the tests on the objects that it defines."""
    _open_standard_files()
    sys.set_int_max_str_digits(0)
    try:
        names = execute(sources, "program")
        objects = ObjectTable(names)
        json_messages.send(channel, "ready")
        while True:
            json_messages.send(channel, objects.answer(json_messages.receive(channel)))
    finally:
        os._exit(1)


def _open_standard_files() -> None:
    # As in the interpreter: bytes that are not UTF-8 are read and written unchanged.
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


class ObjectTable:
    """Objects of the program that tests refer to by number."""

    def __init__(self, names: dict[str, Any]) -> None:
        """Store the globals of the program."""
        self.names = names
        self.objects: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.runner: asyncio.Runner | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a request, or the exception that it raised, and the arguments after it, as JSON."""
        received = Sharing()
        try:
            parts = value_codec.decode(request["parts"], lambda _, number: self.objects[number], received)
            given = dict(received.objects)
            name, value = "value", self._do(request["action"], self.objects.get(request["number"]), parts)
        except BaseException as error:
            given = dict(received.objects)
            name, value = "raised", error
        content = self._error(value) if name == "raised" else value_codec.encode(value, self._refer, received)
        after = [value_codec.contents(argument, self._refer, received) for argument in given.values()]
        return {name: content, "after": after}

    def _do(self, action: str, subject: Any, parts: Any) -> Any:
        if action == "find":
            if parts not in self.names or isinstance(self.names[parts], types.ModuleType):
                raise NameError(parts)
            return self.names[parts]
        if action == "call":
            arguments, named = parts
            return subject(*arguments, **named)
        if action == "apply":
            function, *arguments = parts
            return FUNCTIONS[function](subject, *arguments)
        if action == "operate":
            function, other = parts
            return getattr(operator, function)(subject, other)
        actions: dict[str, Callable[[], Any]] = {
            "attribute": lambda: getattr(subject, parts),
            "set_attribute": lambda: setattr(subject, *parts),
            "delete_attribute": lambda: delattr(subject, parts),
            "item": lambda: subject[parts],
            "set_item": lambda: operator.setitem(subject, *parts),
            "delete_item": lambda: operator.delitem(subject, parts),
            "instance": lambda: isinstance(parts, subject),
            "enter": lambda: subject.__enter__(),
            "exit": lambda: subject.__exit__(None, None, None),
            "copy": lambda: copy.copy(subject),
            "deep_copy": lambda: copy.deepcopy(subject),
            "run": lambda: self._run(subject),
        }
        return actions[action]()

    def _run(self, coroutine: Any) -> Any:
        self.runner = self.runner or asyncio.Runner()
        return self.runner.run(coroutine)

    def _error(self, error: BaseException) -> dict[str, Any]:
        base, chain = self._classes(type(error))
        try:
            text = str(error)[:1000]
            parts = value_codec.encode(list(error.args), self._refer, Sharing())
        except Exception:
            text, parts = "", []
        number = self._number(error)
        return {"error": {"base": base, "chain": chain, "parts": parts, "text": text, "number": number}}

    def _classes(self, kind: type) -> tuple[str, list[Any]]:
        """Return the first built-in base of an exception class, and its other classes from the base on."""
        own = [cls for cls in kind.__mro__ if cls.__module__ != builtins.__name__ or id(cls) in self.numbers]
        chain = [[self._number(cls), cls.__name__] for cls in reversed(own) if issubclass(cls, BaseException)]
        return next(cls.__name__ for cls in kind.__mro__ if cls.__module__ == builtins.__name__), chain

    def _refer(self, value: Any) -> dict[str, Any]:
        if isinstance(value, type) and issubclass(value, BaseException):
            self._number(value)
            return {"error class": self._classes(value)}
        kind = "coroutine" if isinstance(value, types.CoroutineType) else "reference"
        return {kind: self._number(value)}

    def _number(self, value: Any) -> int:
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects) + 1
            self.objects[len(self.objects) + 1] = value
        return self.numbers[id(value)]
