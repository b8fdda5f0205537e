"""The argument parser of the commands: jsonargparse, with errors that name the remedy."""

import re
import sys
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from fireopd.plugins import GROUPS, load_plugins

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class Parser(LightningArgumentParser):
    """Ends with one message and exit code 2 where something is wrong."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and what to do, and exit."""
        print(f"fireopd: {message}{remedy(message)}", file=sys.stderr)
        self.exit(2)
        raise AssertionError("exit returns to nobody")


def instantiate(parser: Parser, settings: Namespace) -> Namespace:
    """Make the objects that the settings describe; a value that a class refuses is an error of the user's."""
    try:
        return parser.instantiate_classes(settings)
    except ValueError as error:
        parser.error(str(error), error)


def remedy(message: str) -> str:
    """Return a sentence to add to a message of the parser's, for the mistakes that are made most."""
    return ""
