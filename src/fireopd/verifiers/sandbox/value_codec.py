"""Encoding of values that a program and its tests exchange: plain data as JSON, other objects as references.

Decoded values have exact built-in types, so that a program cannot return objects that are equal to everything.
"""

from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

__all__ = ["COLLECTIONS", "MUTABLE", "PLAIN", "Sharing", "contents", "decode", "encode", "update"]

PLAIN: tuple[type[bool] | type[int] | type[float] | type[str], ...] = (bool, int, float, str)
COLLECTIONS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
SCALARS: dict[str, tuple[type, Callable[[Any], list[Any]], Callable[..., Any]]] = {
    "complex": (complex, lambda value: [value.real, value.imag], complex),
    "Fraction": (Fraction, lambda value: [int(value.numerator), int(value.denominator)], Fraction),
    "Decimal": (Decimal, lambda value: [Decimal.__str__(value)], Decimal),
    "datetime": (
        datetime,
        lambda value: [datetime.isoformat(value), value.fold],
        lambda text, fold: _moment(text, fold),
    ),
    "date": (date, lambda value: [date.isoformat(value)], date.fromisoformat),
    "time": (time, lambda value: [time.isoformat(value)], time.fromisoformat),
    "timedelta": (timedelta, lambda value: [value.days, value.seconds, value.microseconds], timedelta),
    "range": (range, lambda value: [value.start, value.stop, value.step], range),
    "bytes": (bytes, lambda value: [value.decode("latin1")], lambda text: text.encode("latin1")),
}
"""Types that are encoded by their parts: type, parts of a value, and function from the parts to the value."""
MUTABLE = (list, dict, set, deque, bytearray)
"""Types whose identity is preserved within a call."""


def _moment(text: str, fold: int) -> datetime:
    return datetime.fromisoformat(text).replace(fold=fold)


class Sharing:
    """Mutable objects of a call by number, so that one that occurs twice arrives as one object."""

    def __init__(self) -> None:
        """Create an empty table."""
        self.objects: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}

    def add(self, value: Any, number: int | None = None) -> int:
        """Return the number of an object, the next one by default."""
        number = len(self.objects) if number is None else number
        self.objects[number] = value
        self.numbers[id(value)] = number
        return number


def encode(value: Any, refer: Callable[[Any], dict[str, Any]], shared: Sharing) -> Any:
    """Return a value as JSON; `refer` returns the encoding of an object that is not plain data.

    Instances of subclasses become instances of the built-in type; NumPy numbers and arrays become Python objects.
    """
    if value is None or type(value) in PLAIN:
        return value
    if type(value).__module__ == "numpy" and callable(value.tolist):
        return encode(value.tolist(), refer, shared)
    for plain in PLAIN:
        if isinstance(value, plain):
            return plain(value)
    for name, (kind, parts, _) in SCALARS.items():
        if isinstance(value, kind):
            return {name: parts(value)}
    if not isinstance(value, MUTABLE):
        return contents(value, refer, shared)
    if id(value) in shared.numbers:
        return {"same": shared.numbers[id(value)]}
    return {"shared": [shared.add(value), contents(value, refer, shared)]}


def contents(value: Any, refer: Callable[[Any], dict[str, Any]], shared: Sharing) -> dict[str, Any]:
    """Return a collection or another object as JSON, also if it has been encoded before."""
    for name, collection in COLLECTIONS.items():
        if isinstance(value, collection):
            return {name: [encode(item, refer, shared) for item in value]}
    if isinstance(value, dict):
        pairs = [[encode(key, refer, shared), encode(item, refer, shared)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, bytearray):
        return {"bytearray": value.decode("latin1")}
    return refer(value)


def decode(content: Any, resolve: Callable[[str, Any], Any], shared: Sharing) -> Any:
    """Return the value that was encoded; `resolve` returns the object of an encoding by `refer`.

    Raises:
        ValueError, TypeError, KeyError: if the content is invalid.
    """
    if content is None or type(content) in PLAIN:
        return content
    [(name, parts)] = content.items()
    if name == "same":
        return shared.objects[parts]
    if name == "shared":
        number, inner = parts
        [(name, parts)] = inner.items()
        kind = {**COLLECTIONS, "dict": dict, "bytearray": bytearray}[name]
        value = kind()
        if not isinstance(value, MUTABLE):
            raise ValueError(f"a shared {name}")
        shared.add(value, number)
        update(value, decode(inner, resolve, shared))
        return value
    if name in SCALARS:
        return SCALARS[name][2](*parts)
    if name in COLLECTIONS:
        return COLLECTIONS[name](decode(part, resolve, shared) for part in parts)
    if name == "dict":
        return {decode(key, resolve, shared): decode(item, resolve, shared) for key, item in parts}
    if name == "bytearray":
        return bytearray(parts, "latin1")
    return resolve(name, parts)


def update(target: Any, source: Any) -> None:
    """Give a mutable object the contents of another one of its built-in type; otherwise do nothing."""
    kind = next((kind for kind in MUTABLE if isinstance(target, kind)), None)
    if kind is None or not isinstance(source, kind):
        return
    if kind in (list, bytearray):
        target[:] = source
    elif kind is deque:
        target.clear()
        target.extend(source)
    else:
        target.clear()
        target.update(source)
