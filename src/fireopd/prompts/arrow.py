"""Rows of Arrow tables, as pyarrow and datasets return them."""

from collections.abc import Iterable, Iterator
from typing import Any

from fireopd.errors import UserError

__all__ = ["ARROW_ERRORS", "arrow_problem", "arrow_rows"]

ARROW_ERRORS = (OSError, ValueError, TypeError, ArithmeticError, LookupError, NotImplementedError, MemoryError)
"""Errors of pyarrow for damaged files and for values that Python cannot represent; all have one of these bases."""


def arrow_rows(batches: Iterable[Any], key: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield location and values of each row, numbered from 0.

    Args:
        batches: Arrow tables or record batches.
        key: setting of the table, for error messages.
        name: name of the table, for locations and error messages.

    Raises:
        UserError: if a row cannot be read.
    """
    number = 0
    try:
        for batch in batches:
            for row in _values(batch):
                yield f"{name}[{number}]", row
                number += 1
    except ARROW_ERRORS as error:
        problem = f"cannot be read ({arrow_problem(error)})"
        raise UserError(key, f"{name}[{number}]", problem, "write the file again, without this row") from error


def arrow_problem(error: BaseException) -> str:
    """Return the first line of an error of pyarrow, without control characters."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return "".join(letter if letter.isprintable() else " " for letter in line[:200]).rstrip(". ")


def _values(batch: Any) -> Iterable[dict[str, Any]]:
    """Return the rows of a batch; one by one if one of them cannot be converted, for its number."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except ARROW_ERRORS:
        return (batch.slice(row, 1).to_pylist()[0] for row in range(batch.num_rows))
    return rows
