"""Values that go between a program and its tests: plain data as JSON, everything else as a reference.

Only exact built-in types arrive, so that what a program answers cannot say of itself that it equals what is expected.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

PLAIN: tuple[type[bool] | type[int] | type[float] | type[str], ...] = (bool, int, float, str)
COLLECTIONS: dict[str, type[list] | type[tuple] | type[set] | type[frozenset]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def encode(value: Any, refer: Callable[[Any], int]) -> Any:
    """Return a value as JSON; `refer` gives a number for what is no plain data.

    Subclasses of built-in types become these, NumPy's numbers and arrays become Python's.
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


def decode(content: Any, referred: Callable[[int], Any]) -> Any:
    """Return the value that was encoded; `referred` gives what a number stands for.

    Raises:
        ValueError, TypeError: if there is none.
    """
    if content is None or type(content) in PLAIN:
        return content
    [(name, parts)] = content.items()
    if name in COLLECTIONS:
        return COLLECTIONS[name](decode(part, referred) for part in parts)
    if name == "dict":
        return {decode(key, referred): decode(item, referred) for key, item in parts}
    if name in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[name](parts, "latin1")
    if name == "complex":
        return complex(*parts)
    if name == "reference" and type(parts) is int:
        return referred(parts)
    raise ValueError(f"no value: {name}")


def update(target: Any, source: Any) -> None:
    """Make what can be changed in place equal to what became of its copy."""
    if type(target) is not type(source):
        return
    if isinstance(target, list | bytearray):
        target[:] = source
    elif isinstance(target, dict | set):
        target.clear()
        target.update(source)


def updated(arguments: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a call, in one list."""
    return [*arguments, *named.values()]
