"""Names that tests require a program to define."""

import builtins
import sys
from collections.abc import Iterator
from symtable import SymbolTable, symtable

__all__ = ["required_names", "used_names"]


def required_names(code: str, prelude: str) -> set[str]:
    """Return the names that tests use and neither the tests nor the prelude nor Python define.

    Raises:
        SyntaxError: if code or prelude is invalid.
    """
    return used_names(code) - _bound(code) - _bound(prelude) - vars(builtins).keys() - sys.stdlib_module_names


def used_names(code: str) -> set[str]:
    """Return all global names that code uses, also within functions.

    Raises:
        SyntaxError: if the code is invalid.
    """
    return {
        symbol.get_name()
        for table in _tables(symtable(code, "tests.py", "exec"))
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")
    }


def _bound(code: str) -> set[str]:
    """Return all global names that code assigns, defines or imports."""
    return {
        symbol.get_name()
        for table in _tables(symtable(code, "tests.py", "exec"))
        for symbol in table.get_symbols()
        if (symbol.is_assigned() or symbol.is_imported())
        and (symbol.is_declared_global() or table.get_type() == "module")
    }


def _tables(table: SymbolTable) -> Iterator[SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
