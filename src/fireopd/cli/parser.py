"""Argument parser of the commands: jsonargparse with errors that name the setting, its value and the remedy."""

import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, ClassVar, NoReturn, Union, get_args, get_origin

from jsonargparse import DefaultHelpFormatter, set_parsing_settings
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch import loggers
from lightning.pytorch.cli import LightningArgumentParser

from fireopd import callbacks
from fireopd.cli.class_paths import CALLABLES, command_line_key
from fireopd.cli.entry_points import GROUPS, broken_plugins, failed_import, load_plugins
from fireopd.cli.parse_errors import ParseError
from fireopd.cli.scheduled_settings import refused_schedule
from fireopd.cli.setting_names import (
    alternatives,
    check_config_files,
    full_name,
    given_settings,
    place_of_missing,
    unknown_class,
    unknown_item,
)
from fireopd.errors import UserError
from fireopd.training.tensorboard_logger import RunTensorBoardLogger

__all__ = ["Parser", "explain_error"]

set_parsing_settings(
    docstring_parse_attribute_docstrings=True,
    instantiate_subclass_spec_in_any=False,
    import_path_denylist=[],  # enforces the default list: os, subprocess, shutil and other modules that can do harm
)

STRATEGY_KEYS = {
    "trajectory_filter": "fireopd.filters",
    "filters": "fireopd.filters",
    "token_weighter": "fireopd.weighters",
    "weighters": "fireopd.weighters",
    "objective": "fireopd.objectives",
    "objectives": "fireopd.objectives",
    "teachers": "fireopd.teachers",
    "base": "fireopd.teachers",
    "engine": "fireopd.engines",
    "prompts": "fireopd.prompts",
    "sources": "fireopd.prompts",
    "plan": "fireopd.plans",
    "verifier": "fireopd.verifiers",
}
"""Entry-point group by name of a setting that holds a plug-in."""
CALLBACKS = (*callbacks.__all__, *lightning_callbacks.__all__)
"""Names of classes that `trainer.callbacks` accepts without an import path."""
LOGGERS = (*loggers.__all__, RunTensorBoardLogger.__name__)
"""The same for `trainer.logger`."""


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help that keeps the lines of the description."""


class Parser(LightningArgumentParser):
    """Parser that reports an invalid argument as a single message with exit code 2."""

    settings: ClassVar[tuple[str, ...]] = ()
    """Known settings, used for suggestions."""
    given: ClassVar[Sequence[str]] = ()
    """Arguments of the command, in which messages look up the full name of a setting."""
    collects: ClassVar[bool] = False
    """True within `collecting`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Create a parser of whole names of options, whose description keeps its lines."""
        own: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False}
        super().__init__(*args, **own | settings)

    def add_lightning_class_args(self, lightning_class: Any, *args: Any, **settings: Any) -> list[str]:
        """Add the arguments of a class such as the trainer; a whole number stays one where fractions are allowed, too.

        `1` is one batch for the trainer's limits, `1.0` all of them. Their annotation `Optional[Union[int, float]]` may
        be `Optional[Union[float, int]]` of another module, since typing has one cache for both.
        """
        kinds = lightning_class.__init__.__annotations__
        kinds |= {name: _integers_first(kind) for name, kind in kinds.items()}
        return super().add_lightning_class_args(lightning_class, *args, **settings)

    def parse_args(self, *args: Any, **settings: Any) -> Any:
        """Parse arguments; a file that is no configuration and a module that cannot be imported are a `UserError`."""
        Parser.given = args[0] if args and args[0] else ()
        check_config_files(Parser.given)
        with _named_imports():
            return super().parse_args(*args, **settings)

    def parse_object(self, *args: Any, **settings: Any) -> Any:
        """Parse a mapping; a module that it names and that cannot be imported is a `UserError`."""
        with _named_imports():
            return super().parse_object(*args, **settings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the problem with its remedy and exit with code 2; raise it while errors are collected."""
        cause: BaseException | None = ex
        while cause is not None:
            if failed := failed_import(cause):
                raise failed from ex
            cause = cause.__cause__ or cause.__context__
        text = explain_error(message, self.settings, self.given)
        if Parser.collects:
            raise ParseError(text) from ex
        print(f"fireopd: {text}", file=sys.stderr)
        sys.exit(2)

    @classmethod
    @contextmanager
    def collecting(cls) -> Iterator[None]:
        """Context in which errors of all parsers, those of subcommands included, are raised as `ParseError`."""
        Parser.collects = True
        try:
            yield
        finally:
            Parser.collects = False


def _integers_first(kind: Any) -> Any:
    """Return a type that tries `int` before `float`, if it is a union of these."""
    members = get_args(kind)
    if get_origin(kind) is not Union or not {int, float} <= set(members):
        return kind
    return Union[tuple(sorted(members, key=lambda member: member is not int))]  # noqa: UP007


@contextmanager
def _named_imports() -> Iterator[None]:
    """Context that imports modules by name; one that raises an error, or ends the program, is a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        failed = failed_import(error) or _refused_class("class_path", str(error))
        if failed is None:
            raise
        raise failed from error


def explain_error(message: str, settings: Iterable[str], arguments: Sequence[str] = ()) -> str:
    """Return an error message of jsonargparse, with the remedy for the most common mistakes.

    Args:
        message: of jsonargparse.
        settings: known settings, used for suggestions.
        arguments: those of the command, in which the full name of a setting is looked up.
    """
    given = given_settings(arguments)
    key = next(iter(re.findall(r'Parser key "([^"]+)"', message)), "")
    key = key if "." in key else full_name(key, given)
    name = r"""\[?(?:\{['"]?class_path['"]?: *['"]?)?([^\s,'"}\]]+)"""  # alone, in a list, or in braces with settings
    strategy = re.search(rf"(?:import path string:|path but) {name}", message)
    group = next((STRATEGY_KEYS[part] for part in reversed(key.split(".")) if part in STRATEGY_KEYS), None)
    refused = _refused_class(command_line_key(key), message) or refused_schedule(command_line_key(key), message)
    refused = refused or _refused_file(message)
    if refused:
        return str(refused)
    if strategy and group:
        inner = unknown_class(key, group, given) if strategy[1].startswith("{") else None
        place, plugin = inner or (key, strategy[1])
        return _unknown_plugin(command_line_key(place), plugin, group)
    unknown = re.search(r"(?:unrecognized arguments:|does not accept option|Option) '?([^\s'=]+)", message)
    if unknown:
        return _unknown_setting(unknown[1].lstrip("-"), settings, given)
    required = re.search(r"arguments are required: (.+)$", " ".join(message.split()))
    if required:
        return "\n".join(_missing(name, given) for name in required[1].split(", "))
    if command_line_key(key) in CALLABLES:
        path = re.search(r"class_path='([\w.]+)", message)
        path = path or re.search(r"(?:Expected '|import path string: |Got value: )([\w.]+)", message)
        if path:
            return str(_not_callable(command_line_key(key), path[1]))
    kinds = re.findall(r"Expected an? <class '([\w.]+)'>", message)
    numbers = "float" in kinds or "int" in kinds
    if key and strategy and not numbers:
        return str(_unknown_class(key, strategy[1], given))
    choices = re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)
    choices = list(dict.fromkeys(", ".join(choices).replace("'", "").split(", "))) if choices else []
    value = re.search(r"(?:Got|Given) value: (.*)$", " ".join(message.split()))
    if key and choices and value and set(kinds) <= {"NoneType"}:
        remedy = f"use {' or '.join(choices)}"
        return str(UserError(command_line_key(key), value[1], "no choice of this setting", remedy))
    part = re.search(r"NestedArg\(key='([^']+)'", message)
    if key and part:
        problem = f"has no class whose {part[1]} could be set"
        return str(UserError(command_line_key(key), None, problem, f"name the class first: --{command_line_key(key)}"))
    if key and kinds and value:
        kinds = [kind.rpartition(".")[2].replace("NoneType", "null") for kind in kinds if kind != "dict"]
        switch = numbers and value[1].lower() in ("true", "false")
        remedy = "Give a number: 0 for false, 1 for true." if switch else "Give a value of this type."
        return f"{command_line_key(key)}: {value[1]!r}: not of the type {' or '.join(dict.fromkeys(kinds))}. {remedy}"
    return " ".join(message.split())


def _missing(name: str, given: Mapping[str, Any]) -> str:
    """Return the message of a setting that is required and not given, with its full name."""
    place = place_of_missing(name, given)
    if place == name:
        return f"{command_line_key(name)}: missing. Set it, or use a file: --config configs/multi_teacher.yaml."
    logger = str(given.get(place.rpartition(".")[0], ""))
    hint = ", or use RunTensorBoardLogger, which writes into the run folder"
    return f"{place}: missing. Set it{hint if logger.endswith('TensorBoardLogger') else ''}."


def _unknown_class(key: str, name: str, given: Mapping[str, Any]) -> UserError:
    """Return the error of a class of callbacks or loggers; the message names the first one of a list."""
    known = LOGGERS if key.startswith("trainer.logger") else CALLBACKS
    named = unknown_item(key, known, given) or name
    close = get_close_matches(named, known, n=1)
    remedy = f"write {close[0]}" if close else "name a class of Lightning or fireopd, or give its import path"
    return UserError(command_line_key(key), named, "no class of this name", remedy)


def _not_callable(key: str, path: str) -> UserError:
    """Return the error of an import path that is no optimizer or scheduler."""
    package, _, rest = path.partition(".")
    if rest and find_spec(package) is None:
        return UserError(key, path, f"the package {package} is not installed", f"install {package}, or fix the name")
    _, kind, remedy = CALLABLES[key]
    return UserError(key, path, f"not {kind}", remedy)


def _unknown_setting(name: str, settings: Iterable[str], given: Mapping[str, Any]) -> str:
    place = full_name(name, given)
    own, listed = alternatives(place, given)
    close = [own] if own else get_close_matches(name, settings, n=1)
    hints = [f"Did you mean {close[0]}?"] if close else []
    hints += [f"{listed[0].upper()}{listed[1:]}."] if listed else []
    hint = " ".join(hints) or "--help lists all settings, --KEY.help CLASS those of a plug-in."
    return f"{place}: no such setting. {hint}"


def _refused_class(key: str, message: str) -> UserError | None:
    """Return the error of an importable object that a setting does not accept; None for other messages."""
    denied = re.search(r"Importing '([^']+)' is not allowed", message)
    if denied:
        problem, remedy = (
            "a configuration cannot name this module",
            "use a class of fireopd, Lightning, PyTorch or yours",
        )
        return UserError(key, denied[1], problem, remedy)
    other = re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message)
    if other:
        return UserError(key, other[1], f"not a subclass of {other[2]}", f"name a {other[2]}")
    return None


def _refused_file(message: str) -> UserError | None:
    """Return the error of a configuration file that does not exist or is a folder; None for other messages."""
    pattern = r'Parser key "config": (File does not exist|Path is not a file): (["\'])(.*)\2'
    file = re.search(pattern, " ".join(message.split()))
    if file is None:
        return None
    problem = "the file does not exist" if "exist" in file[1] else "not a file"
    remedy = "give the path of a YAML file, for example configs/multi_teacher.yaml"
    return UserError("--config", file[3], problem, remedy)


def _unknown_plugin(key: str, name: str, group: str) -> str:
    for broken in broken_plugins():
        if name in (broken.name, broken.value.replace(":", ".")):
            return str(UserError(key, name, broken.error.problem, broken.error.remedy))
    names = [plugin.strategy.__name__ for plugin in load_plugins() if plugin.group == group]
    close = get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    other = next((plugin for plugin in load_plugins() if plugin.strategy.__name__ == name), None)
    if other:
        hint = f"{name} is a {GROUPS[other.group].__name__}. "
    kind = GROUPS[group].__name__
    return (
        f"{key}: {name!r}: no {kind} of that name is installed. {hint}Installed: {', '.join(names)} (fireopd plugins). "
        "A class that is not registered needs its import path."
    )
