"""Packages of extras that commands need."""

from importlib.util import find_spec

from fireopd.errors import UserError

__all__ = ["check_matplotlib"]


def check_matplotlib(command: str) -> None:
    """Check that matplotlib is installed.

    Raises:
        UserError: if it is not.
    """
    if find_spec("matplotlib") is None:
        problem, remedy = "needs matplotlib, which is not installed", "install it: pip install 'fireopd[compare]'"
        raise UserError("COMMAND", command, problem, remedy)
