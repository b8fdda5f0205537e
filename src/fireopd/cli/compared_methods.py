"""Methods of a comparison by training: YAML files, or names of installed strategies."""

from collections.abc import Sequence
from pathlib import Path

from fireopd.analysis.compare.conditions import files_by_name
from fireopd.cli.entry_points import load_plugins

__all__ = ["methods_to_train"]

PLAIN = {
    "model.trajectory_filter": "KeepAll",
    "model.token_weighter": "UniformWeighter",
    "model.objective": "ReverseKL",
}
"""Strategies of plain OPD by setting."""
SETTINGS = {
    "fireopd.filters": "model.trajectory_filter",
    "fireopd.weighters": "model.token_weighter",
    "fireopd.objectives": "model.objective",
}
"""Setting of a strategy by entry-point group."""


def methods_to_train(given: Sequence[Path]) -> dict[str, list[str]]:
    """Return the arguments of `fireopd fit` of each method by name.

    A method is a YAML file, or the name of an installed filter, weighter or objective, which replaces that of plain
    OPD.

    Raises:
        UserError: if there is neither such a file nor such a strategy, or two methods have the same name.
    """
    settings = {plugin.name: SETTINGS[plugin.group] for plugin in load_plugins() if plugin.group in SETTINGS}
    named = {str(path) for path in given if str(path) in settings and not path.is_file()}
    files = iter(files_by_name([path for path in given if str(path) not in named], "method").items())
    found: dict[str, list[str]] = {}
    for path in given:
        if str(path) in named:
            own = PLAIN | {settings[str(path)]: str(path)}
            found[str(path)] = [f"--{key}={value}" for key, value in own.items()]
        else:
            name, file = next(files)
            found[name] = ["--config", str(file)]
    return found
