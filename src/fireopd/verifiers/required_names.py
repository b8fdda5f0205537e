"""Names that tests require a program to define."""

import ast
import builtins
import sys
from collections.abc import Iterator
from importlib import import_module
from symtable import SymbolTable, symtable

__all__ = ["MODULES", "required_names", "used_names"]

MODULES = {name: name for name in sys.stdlib_module_names} | {
    "np": "numpy", "numpy": "numpy", "pd": "pandas", "pandas": "pandas", "scipy": "scipy", "sympy": "sympy",
    "nx": "networkx", "networkx": "networkx", "pytest": "pytest",
}  # fmt: skip
"""Modules by the names under which tests may use them without an import; other names of modules must be imported."""


def required_names(code: str, prelude: str) -> set[str]:
    """Return the names that tests use and neither the tests nor the prelude nor Python define.

    Raises:
        SyntaxError: if code or prelude is invalid.
    """
    return used_names(code) - _bound(code) - _bound(prelude) - vars(builtins).keys() - MODULES.keys()


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
    starred = [
        node.module
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module and node.names[0].name == "*"
    ]
    return {name for module in starred for name in _public(module)} | {
        symbol.get_name()
        for table in _tables(symtable(code, "tests.py", "exec"))
        for symbol in table.get_symbols()
        if (symbol.is_assigned() or symbol.is_imported())
        and (symbol.is_declared_global() or table.get_type() == "module")
    }


def _public(module: str) -> list[str]:
    """Return the names that a star import of a module of the standard library or in `MODULES` defines."""
    if module.partition(".")[0] not in MODULES.values() or module in ("antigravity", "this"):
        return []
    try:
        names = vars(import_module(module))
    except ImportError:
        return []
    return list(names.get("__all__", [name for name in names if not name.startswith("_")]))


def _tables(table: SymbolTable) -> Iterator[SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
