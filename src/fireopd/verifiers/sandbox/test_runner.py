"""Process that runs the tests of a program; the objects under test are in the program's process.

Tests run unchanged in this process, and the functions that they call run in the program's process. The program receives
the arguments of each call and answers with plain values, so it can neither read nor end the tests nor forge a result.
"""

import builtins
import socket
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from fireopd.verifiers.required_names import used_names
from fireopd.verifiers.sandbox import value_codec
from fireopd.verifiers.workers import json_messages

__all__ = ["ProgramProxy", "RemoteObject", "passes"]


def passes(tests: dict[str, str | None], channel: socket.socket) -> bool:
    """Return True if the tests raise no exception and use at least one name of the program.

    Args:
        tests: "code", the tests; "prelude", code that runs before them; "entry_point", name of the function under test,
            which is taken from the program even if prelude, builtins or the standard library define it. Their other
            names are never taken from the program, since it could redefine what it is compared with.
        channel: connection to the program's process.
    """
    sys.set_int_max_str_digits(0)
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        program = ProgramProxy(channel)
        exec(compile(tests["prelude"] or "", "prelude.py", "exec"), names)
        code = compile(tests["code"] or "", "tests.py", "exec")
        taken = 0
        for name in sorted(used_names(tests["code"] or "")):
            if name == tests["entry_point"]:
                names[name] = program.ask("find", parts=name)
                taken += 1
            elif name in sys.stdlib_module_names and name not in names:
                names[name] = import_module(name)
            elif name not in names and name not in vars(builtins):
                taken += _take(name, names, program)
        exec(code, names)
    except BaseException:
        return False
    return taken > 0


def _take(name: str, names: dict[str, Any], program: "ProgramProxy") -> bool:
    """Take a name from the program; return False if the program does not define it, so that the tests must."""
    try:
        names[name] = program.ask("find", parts=name)
    except NameError:
        return False
    return True


class ProgramProxy:
    """Connection to the program's process."""

    def __init__(self, channel: socket.socket) -> None:
        """Wait until the program has run."""
        self.channel = channel
        if json_messages.receive(channel) != "ready":
            raise ValueError("the program failed")

    def ask(self, action: str, number: int = 0, parts: Any = None) -> Any:
        """Return the result of an action on an object of the program."""
        return self._value(self._exchange(action, number, parts))

    def call(self, number: int, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Return the result of a call; in-place changes of arguments are applied here, too."""
        parts = value_codec.encode([arguments, named], _number)
        answer = self._exchange("call", number, parts)
        result = self._value(answer)
        before = value_codec.argument_values(arguments, named)
        for argument, after in zip(before, answer["after"], strict=True):
            value_codec.update(argument, value_codec.decode(after, self._remote))
        return result

    def _exchange(self, action: str, number: int, parts: Any) -> dict[str, Any]:
        json_messages.send(self.channel, {"action": action, "number": number, "parts": parts})
        return json_messages.receive(self.channel)

    def _value(self, answer: dict[str, Any]) -> Any:
        if "raised" in answer:
            kind = vars(builtins).get(answer["raised"])
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                kind = RuntimeError
            raise kind(answer["message"])
        return value_codec.decode(answer["value"], self._remote)

    def _remote(self, number: int) -> "RemoteObject":
        return RemoteObject(self, number)


class RemoteObject:
    """Object of the program: operations run in the program's process. It is equal only to itself."""

    def __init__(self, program: ProgramProxy, number: int) -> None:
        """Store the number of the object."""
        self._program, self._number = program, number

    def __eq__(self, other: object) -> bool:
        """Return True for the same object; the object's own `__eq__` is ignored."""
        return isinstance(other, RemoteObject) and other._number == self._number

    def __hash__(self) -> int:
        """Return a hash that is consistent with equality."""
        return hash(self._number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the object."""
        return self._program.call(self._number, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._program.ask("attribute", self._number, name)

    def __getitem__(self, key: Any) -> Any:
        """Return an item."""
        return self._program.ask("item", self._number, value_codec.encode(key, _number))

    def __len__(self) -> int:
        """Return the length."""
        return self._program.ask("length", self._number)

    def __bool__(self) -> bool:
        """Return the truth value."""
        return self._program.ask("truth", self._number)

    def __str__(self) -> str:
        """Return the object as text."""
        return self._program.ask("text", self._number)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator."""
        return self._program.ask("iterate", self._number)

    def __next__(self) -> Any:
        """Return the next item."""
        return self._program.ask("next", self._number)


def _number(value: Any) -> int:
    if isinstance(value, RemoteObject):
        return value._number
    raise TypeError(f"arguments must be plain values, got {type(value).__name__}")
