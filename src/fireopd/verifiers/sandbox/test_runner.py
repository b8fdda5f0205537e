"""The process that tests a program: it has the tests, the program's process has what they are about.

The tests run here, as they are written; what they call runs there. The program sees the arguments of each call, one
after another, and answers with plain values: it cannot reach the tests, end them, or answer in their place.
"""

import builtins
import socket
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from fireopd.verifiers.required_names import used
from fireopd.verifiers.sandbox import value_codec
from fireopd.verifiers.workers import json_messages


def passes(tests: dict[str, str | None], channel: socket.socket) -> bool:
    """Return whether tests run to their end without an exception, and are about something of the program's.

    Args:
        tests: "code" that tests; "prelude", code that stands before it; "entry_point", name of what is tested, which
            is taken from the program even where prelude, builtins or the standard library have the name. No other
            name of theirs is: else a program could redefine what tests compare with.
        channel: to the program's process.
    """
    sys.set_int_max_str_digits(0)
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        program = Program(channel)
        exec(compile(tests["prelude"] or "", "prelude.py", "exec"), names)
        code = compile(tests["code"] or "", "tests.py", "exec")
        taken = 0
        for name in sorted(used(tests["code"] or "")):
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


def _take(name: str, names: dict[str, Any], program: "Program") -> bool:
    """Take a name from the program; return False if it defines no such name, which is the tests' own then."""
    try:
        names[name] = program.ask("find", parts=name)
    except NameError:
        return False
    return True


class Program:
    """The program's process."""

    def __init__(self, channel: socket.socket) -> None:
        """Wait for the program to have run."""
        self.channel = channel
        if json_messages.receive(channel) != "ready":
            raise ValueError("the program did not run to its end")

    def ask(self, action: str, number: int = 0, parts: Any = None) -> Any:
        """Return what comes of doing something with an object of the program's."""
        return self._value(self._exchange(action, number, parts))

    def call(self, number: int, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Return what a call returns; arguments that it changes in place are changed here, too."""
        parts = value_codec.encode([arguments, named], _number)
        answer = self._exchange("call", number, parts)
        result = self._value(answer)
        given = value_codec.updated(arguments, named)
        for argument, after in zip(given, answer["after"], strict=True):
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

    def _remote(self, number: int) -> "Remote":
        return Remote(self, number)


class Remote:
    """An object of the program's: what is done with it is done there; it equals itself alone."""

    def __init__(self, program: Program, number: int) -> None:
        """Refer to an object by its number."""
        self._program, self._number = program, number

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same object: what the object says of that does not count."""
        return isinstance(other, Remote) and other._number == self._number

    def __hash__(self) -> int:
        """Return what goes with that."""
        return hash(self._number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it."""
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
        """Return its length."""
        return self._program.ask("length", self._number)

    def __bool__(self) -> bool:
        """Return whether it counts as true."""
        return self._program.ask("truth", self._number)

    def __str__(self) -> str:
        """Return its text."""
        return self._program.ask("text", self._number)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator over it."""
        return self._program.ask("iterate", self._number)

    def __next__(self) -> Any:
        """Return the next item."""
        return self._program.ask("next", self._number)


def _number(value: Any) -> int:
    if isinstance(value, Remote):
        return value._number
    raise TypeError(f"a program is tested with plain values, not with {type(value).__name__}")
