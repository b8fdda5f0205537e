"""Encoding of values that a program and its tests exchange: plain data as JSON, other objects as references.

Decoded values have exact built-in types, so that a program cannot return objects that are equal to everything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["COLLECTIONS", "PLAIN", "argument_values", "decode", "encode", "update"]

PLAIN: tuple[type[bool] | type[int] | type[float] | type[str], ...] = (bool, int, float, str)
COLLECTIONS: dict[str, type[list] | type[tuple] | type[set] | type[frozenset]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def encode(value: Any, refer: Callable[[Any], int]) -> Any:
    """Return a value as JSON; `refer` returns the number of an object that is not plain data.

    Instances of subclasses become instances of the built-in type; NumPy numbers and arrays become Python objects.
    """
    if value is None or type(value) in PLAIN:
        return value
    if type(value).__module__ == "numpy" and callable(value.tolist):
        return encode(value.tolist(), refer)
    for plain in PLAIN:
        if isinstance(value, plain):
            return plain(value)
    for name, collection in COLLECTIONS.items():
        if isinstance(value, collection):
            return {name: [encode(item, refer) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, refer), encode(item, refer)] for key, item in value.items()]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: value.decode("latin1")}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    return {"reference": refer(value)}


def decode(content: Any, resolve: Callable[[int], Any]) -> Any:
    """Return the value that was encoded; `resolve` returns the object with a number.

    Raises:
        ValueError, TypeError: if the content is invalid.
    """
    if content is None or type(content) in PLAIN:
        return content
    [(name, parts)] = content.items()
    if name in COLLECTIONS:
        return COLLECTIONS[name](decode(part, resolve) for part in parts)
    if name == "dict":
        return {decode(key, resolve): decode(item, resolve) for key, item in parts}
    if name in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[name](parts, "latin1")
    if name == "complex":
        return complex(*parts)
    if name == "reference" and type(parts) is int:
        return resolve(parts)
    raise ValueError(f"unknown encoding: {name}")


def update(target: Any, source: Any) -> None:
    """Apply in-place changes of a copy to the original object."""
    if type(target) is not type(source):
        return
    if isinstance(target, list | bytearray):
        target[:] = source
    elif isinstance(target, dict | set):
        target.clear()
        target.update(source)


def argument_values(arguments: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """Return positional and named arguments of a call in one list."""
    return [*arguments, *named.values()]
