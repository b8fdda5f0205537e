"""The argument parser of the commands: jsonargparse, with errors that name the setting, its value and the remedy."""

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, NoReturn

from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from fireopd.cli.entry_points import GROUPS, load_plugins

set_parsing_settings(docstring_parse_attribute_docstrings=True)

STRATEGY_KEYS = {
    "trajectory_filter": "fireopd.filters",
    "filters": "fireopd.filters",
    "token_weighter": "fireopd.weighters",
    "weighters": "fireopd.weighters",
    "objective": "fireopd.objectives",
    "teachers": "fireopd.teachers",
    "base": "fireopd.teachers",
    "engine": "fireopd.engines",
    "prompts": "fireopd.prompts",
    "sources": "fireopd.prompts",
    "verifier": "fireopd.verifiers",
}
"""The settings that hold a strategy, and the group that it comes from."""


class Parser(LightningArgumentParser):
    """Ends with one message and exit code 2 where something is wrong."""

    settings: ClassVar[tuple[str, ...]] = ()
    """The settings that there are, for suggestions."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and what to do, and exit."""
        print(f"fireopd: {explain(message, self.settings)}", file=sys.stderr)
        sys.exit(2)


def instantiate(parser: Parser, settings: Namespace) -> Namespace:
    """Make the objects that the settings describe; a value that a class refuses is an error of the user's."""
    try:
        return parser.instantiate(settings)
    except ValueError as error:
        name, value = str(error).partition(" ")[0], str(error).rpartition("got ")[2]
        flat = vars(settings.as_flat())
        keys = [key for key in flat if key.rpartition(".")[2] == name and value.startswith(str(flat[key]))]
        place = f"{readable(keys[0])}: " if len(keys) == 1 else ""
        parser.error(f"{place}{error}", error)


def readable(key: str) -> str:
    """Return a key as it is written on the command line."""
    return key.removeprefix("fit.").replace(".init_args", "")


def explain(message: str, settings: Iterable[str]) -> str:
    """Return a message of jsonargparse's with the remedy, for the mistakes that are made most."""
    key = next(iter(re.findall(r'Parser key "([^"]+)"', message)), "")
    strategy = re.search(r"(?:import path string:|path but) (\S+)", message)
    group = next((STRATEGY_KEYS[part] for part in reversed(key.split(".")) if part in STRATEGY_KEYS), None)
    if strategy and group:
        return unknown_strategy(readable(key), strategy[1], group)
    unknown = re.search(r"(?:unrecognized arguments:|does not accept option|Option) '?([^\s'=]+)", message)
    if unknown:
        name = unknown[1].lstrip("-")
        close = get_close_matches(name, settings, n=1)
        hint = (
            f"Did you mean {close[0]}?" if close else "--help lists the settings, --KEY.help CLASS those of a strategy."
        )
        return f"{name}: no such setting. {hint}"
    required = re.search(r"arguments are required: (\S+)", message)
    if required:
        return f"{readable(required[1])}: missing. Name it, or a file that does: --config configs/multi_teacher.yaml."
    if "File does not exist" in message:
        return f"{' '.join(message.split())}. Give the path of a YAML file, for example configs/multi_teacher.yaml."
    return " ".join(message.split())


def unknown_strategy(key: str, name: str, group: str) -> str:
    """Return what to say of a strategy that is not installed."""
    names = [plugin.strategy.__name__ for plugin in load_plugins() if plugin.group == group]
    close = get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    kind = GROUPS[group].__name__
    return (
        f"{key}: {name!r}: no {kind} of that name is installed. {hint}Installed: {', '.join(names)} (fireopd plugins)."
    )
