"""All parse errors of a command at once: after an error, the arguments are parsed without the setting at fault."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from fireopd.cli.setting_names import given_settings
from fireopd.errors import UserError, raise_together

__all__ = ["ParseError", "parse_all", "without"]

MOST = 20
"""Errors after which parsing ends: each takes about a second."""


class ParseError(SystemExit):
    """Error of the parser; its message starts with the setting.

    As a `SystemExit` it passes through jsonargparse, which takes other errors for one of several types that do not fit.
    """


def parse_all(parse: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> Any:
    """Return what a parser makes of arguments; if there are errors, print all of them and exit with code 2.

    The search ends at an error that no given setting explains, such as a missing one. Errors that are all of the type
    `UserError` are raised.

    Args:
        parse: parser that raises `ParseError` or `UserError` at the first error.
        arguments: those of the command.
    """
    found, removed, rest = list[ParseError | UserError](), list[str](), list(arguments)
    with TemporaryDirectory() as folder:
        while len(found) < MOST:
            try:
                settings = parse(rest)
            except ParseError as error:
                errors: Sequence[ParseError | UserError] = [error]
            except UserError as error:
                errors = error.each
            else:
                if not found:
                    return settings
                break
            place, _, problem = str(errors[0]).partition(": ")
            caused = problem.startswith("missing.") and any(_below(place, own) for own in removed)
            left = None if caused else without(rest, place, Path(folder) / str(len(removed)))
            found += [] if caused else errors
            if left is None:
                break
            removed.append(place)
            rest = left
    users = [error for error in found if isinstance(error, UserError)]
    if len(users) == len(found):
        raise_together(users)
    for text in dict.fromkeys(map(str, found)):
        print(f"fireopd: {text}", file=sys.stderr)
    sys.exit(2)


def without(arguments: Sequence[str], place: str, folder: Path) -> list[str] | None:
    """Return arguments without a setting; None if none of them gives it.

    Args:
        arguments: those of a command.
        place: dotted name of the setting; all that is below it is removed, too.
        folder: folder for copies of configuration files without the setting; created if needed.
    """
    kept, pending, changed = list[str](), list(arguments), False
    while pending:
        argument = pending.pop(0)
        name, equals, value = argument.partition("=")
        words = [argument]
        if name.startswith("--") and not equals and pending and not pending[0].startswith("--"):
            value = pending.pop(0)
            words.append(value)
        if name == "--config" and Path(value).is_file():
            content = yaml.safe_load(Path(value).read_text())
            left = _without(content, place, "")
            if left != content:
                changed = True
                folder.mkdir(exist_ok=True)
                copy = folder / f"{len(kept)}.yaml"
                copy.write_text(yaml.safe_dump(left, sort_keys=False) if left else "{}\n")
                words = [name, str(copy)] if left else []
        elif name.startswith("--") and _below(name.removeprefix("--").rstrip("+"), place):
            changed, words = True, []
        elif given_settings(words) and any(_below(key, place) for key in given_settings(words)):
            left = _without(yaml.safe_load(value), place, name.removeprefix("--"))
            changed, words = True, [name, yaml.safe_dump(left, default_flow_style=True).strip()] if left else []
        kept += words
    return kept if changed else None


def _below(key: str, place: str) -> bool:
    key = key.removesuffix(".class_path").replace(".init_args.", ".")
    return f"{key}.".startswith(f"{place}.") or key.startswith(f"{place}[")


def _without(value: Any, place: str, key: str) -> Any:
    """Return a value whose dotted name is `key` without what is at a place below it."""
    if isinstance(value, Mapping):
        named = (
            (name, own, key if name == "init_args" else f"{key}.{name}".lstrip(".")) for name, own in value.items()
        )
        kept = {name: _without(own, place, full) for name, own, full in named if not _below(full, place)}
        return {name: own for name, own in kept.items() if own or not value[name]}
    if isinstance(value, list):
        return list(_kept_items(value, place, key))
    return value


def _kept_items(values: list[Any], place: str, key: str) -> Iterator[Any]:
    for number, own in enumerate(values):
        full = f"{key}[{number}]"
        if not _below(full, place):
            yield _without(own, place, full)
