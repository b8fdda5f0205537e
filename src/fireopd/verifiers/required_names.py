"""The names that tests use: which of them a program has to define."""

import builtins
import sys
from collections.abc import Iterator
from symtable import SymbolTable, symtable


def asked(code: str, prelude: str) -> set[str]:
    """Return the names that tests take from the program: neither their own, nor the prelude's, nor Python's.

    Raises:
        SyntaxError: if there is no such code.
    """
    return used(code) - _bound(code) - _bound(prelude) - vars(builtins).keys() - sys.stdlib_module_names


def used(code: str) -> set[str]:
    """Return all global names that code uses, in its functions too.

    Raises:
        SyntaxError: if it is no code.
    """
    return {
        symbol.get_name()
        for table in _tables(symtable(code, "tests.py", "exec"))
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")
    }


def _bound(code: str) -> set[str]:
    """Return all global names that code gives a value, be it a function or a module."""
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
