"""Objects of a program, as its tests see them: each operation is a request to the program's process.

The program must not judge what it is compared with. It evaluates an operator only if both operands are its own objects;
with a value of the tests, `==` is False and other operators are unsupported.
"""

import operator
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireopd.verifiers.sandbox.test_runner import ProgramProxy

__all__ = ["BINARY", "FUNCTIONS", "RemoteCoroutine", "RemoteError", "RemoteObject", "Unsupported"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len, "bool": bool, "str": str, "repr": repr, "iter": iter, "next": next, "hash": hash, "abs": abs,
    "int": int, "float": float, "complex": complex, "round": round, "reversed": reversed, "format": format,
    "neg": operator.neg, "pos": operator.pos, "invert": operator.invert, "index": operator.index,
}  # fmt: skip
"""Functions that are applied to an object of the program."""
BINARY = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift",
    "lt", "le", "gt", "ge", "eq", "ne",
    "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor",
)  # fmt: skip
"""Operators between two objects of the program, as named in the module `operator`."""


class Unsupported(BaseException):
    """Operation of a test that the sandbox does not support."""


class RemoteObject:
    """Object of the program."""

    _program: "ProgramProxy"
    _number: int

    def __init__(self, program: "ProgramProxy", number: int) -> None:
        """Store the number of the object."""
        self.__dict__.update(_program=program, _number=number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the object."""
        return self._program.call(self._number, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute."""
        if name.startswith("__") and name not in ("__name__", "__qualname__"):
            raise AttributeError(name)
        return self._program.ask("attribute", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        self._program.ask("set_attribute", self._number, [name, value])

    def __delattr__(self, name: str) -> None:
        """Delete an attribute."""
        self._program.ask("delete_attribute", self._number, name)

    def __getitem__(self, key: Any) -> Any:
        """Return an item."""
        return self._program.ask("item", self._number, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set an item."""
        self._program.ask("set_item", self._number, [key, value])

    def __delitem__(self, key: Any) -> None:
        """Delete an item."""
        self._program.ask("delete_item", self._number, key)

    def __contains__(self, item: Any) -> bool:
        """Return True if an item is in the object; a value of the tests is compared with all items here."""
        if isinstance(item, RemoteObject):
            return self._program.ask("operate", self._number, ["contains", item])
        try:
            items = iter(self)
        except TypeError as error:
            raise Unsupported("`in` on an object of the program without an iterator") from error
        return any(item is candidate or item == candidate for candidate in items)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator."""
        return self._apply("iter")

    def __instancecheck__(self, instance: Any) -> bool:
        """Return True for an instance of this class of the program."""
        return isinstance(instance, RemoteObject) and self._program.ask("instance", self._number, instance)

    def __enter__(self) -> Any:
        """Enter the context."""
        return self._program.ask("enter", self._number)

    def __exit__(self, *error: object) -> None:
        """Leave the context; the program cannot suppress an exception, which may be a failed test."""
        self._program.ask("exit", self._number)

    def __copy__(self) -> Any:
        """Return a shallow copy."""
        return self._program.ask("copy", self._number)

    def __deepcopy__(self, memo: Any) -> Any:
        """Return a deep copy."""
        return self._program.ask("deep_copy", self._number)

    def _apply(self, function: str, *arguments: Any) -> Any:
        return self._program.ask("apply", self._number, [function, *arguments])

    def _operate(self, name: str, other: Any) -> Any:
        if isinstance(other, RemoteObject):
            return self._program.ask("operate", self._number, [name, other])
        if name in ("eq", "ne"):
            return name == "ne"
        raise Unsupported(f"the operator `{name.strip('_')}` between an object of the program and a value of the tests")


def _applies(function: str) -> Callable[..., Any]:
    return lambda self, *arguments: self._apply(function, *arguments)


def _operates(name: str) -> Callable[..., Any]:
    return lambda self, other: self._operate(name, other)


for _name in FUNCTIONS:
    setattr(RemoteObject, f"__{_name}__", _applies(_name))
for _name in BINARY:
    setattr(RemoteObject, f"__{_name.strip('_')}__", _operates(_name))
    if _name in BINARY[:13]:
        setattr(RemoteObject, f"__r{_name.strip('_')}__", _operates(_name))


class RemoteCoroutine(RemoteObject):
    """Coroutine of the program. The program runs it to its end when it is awaited."""

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError."""
        raise AttributeError(name)

    def send(self, value: Any) -> Any:
        """Run the coroutine.

        Raises:
            StopIteration: with its result.
        """
        raise StopIteration(self._program.ask("run", self._number))

    def __next__(self) -> Any:
        """Run the coroutine, as `send`."""
        return self.send(None)

    def throw(self, *error: Any) -> Any:
        """Raise an error instead of running the coroutine."""
        raise error[0]

    def close(self) -> None:
        """Do nothing: a coroutine that has not been awaited has not started."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Run the coroutine and return its result."""
        return self._program.ask("run", self._number)
        yield


class RemoteError(Exception):
    """Base class of the local counterparts of exception classes of the program."""

    def __str__(self) -> str:
        """Return the text that the program gave the exception."""
        return self.__dict__.get("_text", super().__str__())

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of an exception that the program raised."""
        if name.startswith("_") or "_source" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["_source"], name)
