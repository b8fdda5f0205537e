"""Packages that only some sources and verifiers need, each brought by an extra of this one."""

from importlib import import_module
from typing import Any

from fireopd.errors import UserError


def import_extra(module: str, extra: str, key: str, value: str) -> Any:
    """Return a module.

    Raises:
        UserError: that names the setting and the extra, if the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"needs {module.partition('.')[0]}, which is not installed ({error.name} is missing)"
        raise UserError(key, value, problem, f"install it: pip install 'fireopd[{extra}]'") from error
