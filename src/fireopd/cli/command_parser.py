"""Parser of commands whose arguments are no settings of strategies. It is imported without Lightning and PyTorch."""

import argparse
import sys
from typing import NoReturn

__all__ = ["CommandParser"]


class CommandParser(argparse.ArgumentParser):
    """Parser that reports an invalid argument as a single message with exit code 2.

    Args:
        command: name of the command.
        description: text of the help, whose lines are kept.
        epilog: text after the options.
    """

    def __init__(self, command: str, description: str | None, epilog: str | None = None) -> None:
        """Create a parser of whole names of options."""
        kind = argparse.RawDescriptionHelpFormatter
        super().__init__(
            f"fireopd {command}", description=description, epilog=epilog, formatter_class=kind, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Print the problem and where to look, and exit with code 2."""
        print(f"fireopd: {message}. See {self.prog} --help", file=sys.stderr)
        sys.exit(2)
