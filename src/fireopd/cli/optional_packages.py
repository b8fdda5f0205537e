"""Packages of extras that commands need."""

from importlib.util import find_spec

from fireopd.errors import UserError

__all__ = ["check_package"]


def check_package(package: str, user: str, extra: str) -> None:
    """Check that a package is installed.

    Args:
        package: name of the package.
        user: command or option that needs it.
        extra: extra of fireopd that installs it.

    Raises:
        UserError: if it is not installed.
    """
    if find_spec(package) is None:
        remedy = f"install it: pip install 'fireopd[{extra}]'"
        raise UserError(user, package, "this package is not installed", remedy)
