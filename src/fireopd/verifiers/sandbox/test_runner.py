"""Process that runs the tests of a program; the objects under test are in the program's process.

Tests run unchanged in this process, and the functions that they call run in the program's process. The program receives
the arguments of each call and answers with plain values, so it can neither read nor end the tests nor forge a result.
"""

import builtins
import socket
import sys
from importlib import import_module
from typing import Any

from fireopd.verifiers.required_names import MODULES, used_names
from fireopd.verifiers.sandbox import value_codec
from fireopd.verifiers.sandbox.remote_objects import RemoteCoroutine, RemoteError, RemoteObject, Unsupported
from fireopd.verifiers.sandbox.value_codec import Sharing
from fireopd.verifiers.workers import json_messages

__all__ = ["ProgramProxy", "passes"]


def passes(tests: dict[str, Any], channel: socket.socket) -> bool | str:
    """Return True if the tests raise no exception, False if they do, and text if they need an unsupported operation.

    Args:
        tests: "code", the tests; "prelude", code that runs before them; "names", the names that are taken from the
            program. All other names are defined by the tests, the prelude, Python, or an installed module, and never by
            the program, since it could redefine what it is compared with.
        channel: connection to the program's process.
    """
    sys.set_int_max_str_digits(0)
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        program = ProgramProxy(channel)
        exec(compile(tests["prelude"], "prelude.py", "exec", dont_inherit=True), names)
        code = compile(tests["code"], "tests.py", "exec", dont_inherit=True)
        for name in sorted(used_names(tests["code"])):
            if name in MODULES and name not in names and name not in vars(builtins) and name not in tests["names"]:
                names[name] = import_module(MODULES[name])
        for name in tests["names"]:
            names[name] = program.ask("find", parts=name)
        exec(code, names)
    except Unsupported as error:
        return str(error)
    except BaseException:
        return False
    return True


class ProgramProxy:
    """Connection to the program's process."""

    def __init__(self, channel: socket.socket) -> None:
        """Wait until the program has run."""
        self.channel = channel
        self.objects: dict[int, RemoteObject] = {}
        self.errors: dict[int, type[RemoteError]] = {}
        if json_messages.receive(channel) != "ready":
            raise ValueError("the program failed")

    def ask(self, action: str, number: int = 0, parts: Any = None) -> Any:
        """Return the result of an action on an object of the program; changes of arguments are applied here, too."""
        sent = Sharing()
        request = {"action": action, "number": number, "parts": value_codec.encode(parts, self._refer, sent)}
        json_messages.send(self.channel, request)
        answer = json_messages.receive(self.channel)
        received = Sharing()
        for key, value in sent.objects.items():
            received.add(value, key)
        raised = "raised" in answer
        result = value_codec.decode(answer["raised" if raised else "value"], self._resolve, received)
        after = [value_codec.decode(content, self._resolve, received) for content in answer["after"]]
        for value, content in zip(list(sent.objects.values()), after, strict=True):
            value_codec.update(value, content)
        if not raised:
            return result
        if isinstance(result, StopIteration | StopAsyncIteration) and parts != ["next"]:
            raise RuntimeError(str(result))  # would end a loop of the tests
        if not isinstance(result, Exception):
            raise RuntimeError
        raise result

    def call(self, number: int, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Return the result of a call."""
        return self.ask("call", number, [arguments, named])

    def _refer(self, value: Any) -> dict[str, Any]:
        if isinstance(value, RemoteObject):
            return {"reference": value.__dict__["_number"]}
        if isinstance(value, RemoteError) and "_source" in value.__dict__:
            return {"reference": value.__dict__["_source"].__dict__["_number"]}
        raise Unsupported(f"an argument of the type {type(value).__name__}")

    def _resolve(self, name: str, parts: Any) -> Any:
        if name in ("reference", "coroutine") and type(parts) is int:
            kind = RemoteObject if name == "reference" else RemoteCoroutine
            return self.objects.setdefault(parts, kind(self, parts))
        if name == "error class":
            return self._error_class(*parts)
        if name == "error":
            return self._error(**parts)
        raise ValueError(f"unknown encoding: {name}")

    def _error_class(self, base: str, chain: list[Any]) -> type[Exception]:
        """Return a class for an exception class of the program: never one that the tests' own exceptions have."""
        parent = _builtin_error(base)
        for number, name in chain:
            if number not in self.errors:
                bases = (parent,) if issubclass(parent, RemoteError) else (RemoteError, parent)
                self.errors[number] = type(str(name), bases, {})
            parent = self.errors[number]
        return parent

    def _error(self, base: str, chain: list[Any], parts: Any, text: str, number: int) -> Exception:
        kind = self._error_class(base, chain)
        try:
            error = kind(*value_codec.decode(parts, self._resolve, Sharing()))
        except Exception:
            error = kind.__new__(kind)
            error.args = (text,)
        if isinstance(error, RemoteError):
            error.__dict__.update(_text=str(text), _source=RemoteObject(self, number))
        return error


def _builtin_error(name: str) -> type[Exception]:
    kind = vars(builtins).get(name)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError
