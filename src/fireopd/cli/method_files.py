"""Methods as files: YAML overlays that say what makes a run that method, in training and on recorded rollouts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch.loggers import TensorBoardLogger

from fireopd.analysis.compare.run_plan import OF_A_RUN
from fireopd.callbacks import Summary
from fireopd.cli.parser import Parser, instantiate
from fireopd.cli.training_cli import FitParser, build
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.training.checks import check_run


class MethodParser(Parser):
    """Knows the settings of a method."""

    settings = FitParser.settings


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return overlays by the names of their methods, which are those of the files without their endings.

    Raises:
        UserError: if a file is not there, or two have the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise UserError("--methods", str(path), "no such file", "give the YAML file of a method")
        if path.stem in found:
            problem = f"{found[path.stem]} has the same name"
            raise UserError("--methods", str(path), problem, "rename one of them: the name is what tells methods apart")
        found[path.stem] = path
    return found


def read_method(name: str, path: Path, option: str = "--methods") -> tuple[Method, list[str]]:
    """Return a method and those settings of its file that change nothing in what it makes of recorded rollouts.

    Args:
        name: of the method.
        path: of its file.
        option: that the file was named by, for messages.

    Raises:
        UserError: if the file holds what is no setting, or what a strategy refuses.
    """
    given = _read(path, option)
    parser = MethodParser(prog="fireopd compare")
    parser.add_class_arguments(Method, "model")
    own = {key: value for key, value in given["model"].items() if key in Method.__dataclass_fields__}
    others = [key for key in _keys(given) if key.removeprefix("model.") not in own]
    for key in others:
        if key not in (*FitParser.settings, "seed_everything"):
            remedy = "mend it; fireopd fit --help lists the settings"
            raise UserError(option, str(path), f"{key} is no setting of a run", remedy)
    try:
        settings = instantiate(parser, parser.parse_object({"model": own}))
    except SystemExit as stop:
        raise _refused(name, path, option) from stop
    return settings.model, sorted(set(others) - OF_A_RUN)


def check_training(name: str, path: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Return all the settings that the arguments of a method's runs come to, flat; no model is loaded.

    Raises:
        UserError: if such a run would be refused, or would not leave behind what is compared.
    """
    try:
        cli = build(arguments, train=False)
    except SystemExit as stop:
        raise _refused(name, path, "--methods") from stop
    trainer: Any = cli.trainer
    if not any(isinstance(callback, Summary) for callback in trainer.callbacks):
        raise UserError("trainer.callbacks", name, "there is no Summary, whose file is read", "add Summary")
    if not any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        raise UserError("trainer.logger", name, "there is no TensorBoardLogger, whose curves are read", "leave it out")
    cli.prepare()
    check_run(cli.model, cli.datamodule)
    if not cli.datamodule.tasks:
        raise UserError("data.prompts", name, "there are no validation prompts", "give some: they are what is compared")
    return flat(json.loads(cli.parser.dump(cli.config, format="json")))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their whole keys; lists are values."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


def _read(path: Path, option: str) -> dict[str, Any]:
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(option, str(path), f"cannot be read as YAML ({reason})", "mend the file") from error
    if not isinstance(given, dict) or not isinstance(given.get("model"), dict):
        remedy = 'write "model:" and, indented below it, the strategies'
        raise UserError(option, str(path), "holds no settings of a model", remedy)
    return cast(dict[str, Any], given)


def _keys(given: Mapping[str, Any]) -> list[str]:
    """Return the settings in a file as `<group>.<name>`."""
    groups = {group: list(value) if isinstance(value, dict) else [""] for group, value in given.items()}
    return [f"{group}.{name}".rstrip(".") for group, names in groups.items() for name in names]


def _refused(name: str, path: Path, option: str) -> UserError:
    problem = f"the settings of the method {name} are refused, as said above"
    return UserError(option, str(path), problem, "mend the file, or leave the method out")
