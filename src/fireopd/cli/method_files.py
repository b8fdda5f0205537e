"""Method files: YAML files with the settings of a method, for training and for recorded rollouts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import yaml

from fireopd.analysis.compare.planned_run import PER_RUN_SETTINGS
from fireopd.callbacks import Summary
from fireopd.cli.instantiation import instantiate
from fireopd.cli.parser import Parser
from fireopd.cli.training_cli import FitParser, build
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.training.run_checks import check_run

__all__ = ["MethodParser", "check_training", "flatten", "read_method"]


class MethodParser(Parser):
    """Parser of a method file."""

    settings = FitParser.settings


def read_method(name: str, path: Path, option: str = "--methods") -> tuple[Method, list[str]]:
    """Return a method and those settings of its file that have no effect on recorded rollouts.

    Args:
        name: name of the method.
        path: file of the method.
        option: command-line option that names the file, for error messages.

    Raises:
        UserError: if the file contains an unknown setting or an invalid value.
    """
    given = _read(path, option)
    parser = MethodParser(prog="fireopd compare")
    parser.add_class_arguments(Method, "model")
    own = {key: value for key, value in given["model"].items() if key in Method.__dataclass_fields__}
    others = [key for key in _keys(given) if key.removeprefix("model.") not in own]
    for key in others:
        if key not in (*FitParser.settings, "seed_everything"):
            remedy = "fix the key; fireopd fit --help lists the settings"
            raise UserError(option, str(path), f"{key} is not a setting of a run", remedy)
    with _refused(name, path, option):
        settings = instantiate(parser, parser.parse_object({"model": own}))
    return settings.model, sorted(set(others) - PER_RUN_SETTINGS)


def check_training(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return all settings that result from the arguments of a method's runs, by dotted key; no model is loaded.

    Raises:
        UserError: if such a run is invalid, or would not write the results that are compared.
    """
    with _refused(name, name, "--methods"):
        cli = build(arguments, train=False)
    trainer: Any = cli.trainer
    if not any(isinstance(callback, Summary) for callback in trainer.callbacks):
        raise UserError("trainer.callbacks", name, "the Summary callback is required", "add Summary")
    cli.prepare()
    check_run(cli.model.run_plan(cli.datamodule))
    if not cli.datamodule.tasks:
        raise UserError(
            "data.prompts", name, "there are no validation prompts", "add some: methods are compared on them"
        )
    return flatten(json.loads(cli.parser.dump(cli.config, format="json")))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key; lists are kept as values."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


def _read(path: Path, option: str) -> dict[str, Any]:
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(option, str(path), f"cannot be read as YAML ({reason})", "fix the file") from error
    if not isinstance(given, dict) or not isinstance(given.get("model"), dict):
        remedy = 'write "model:" and, indented below it, the strategies'
        raise UserError(option, str(path), 'it has no section "model"', remedy)
    return cast(dict[str, Any], given)


def _keys(given: Mapping[str, Any]) -> list[str]:
    """Return the keys of all settings in a file as `<group>.<name>`."""
    groups = {group: list(value) if isinstance(value, dict) else [""] for group, value in given.items()}
    return [f"{group}.{name}".rstrip(".") for group, names in groups.items() for name in names]


@contextmanager
def _refused(name: str, path: str | Path, option: str) -> Iterator[None]:
    """Context in which settings that the parser refuses are a `UserError` of a method; a signal ends the program."""
    try:
        yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        problem = f"the settings of the method {name} are invalid (see above)"
        raise UserError(option, str(path), problem, "fix the file, or leave the method out") from stop
