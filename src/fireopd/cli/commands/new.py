"""`fireopd new KIND PACKAGE.CLASS`: create an installable package with a working plug-in to start from.

KIND is filter, weighter, objective, teacher, engine, plan, prompts or verifier. The package contains the plug-in, its
entry point, a test of its contract, and a README with the next commands. If the folder is that of an existing package,
the plug-in is added to it: a module, a test, and an entry point in `pyproject.toml`; no file is overwritten.
"""

import importlib.util
import keyword
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import fireopd
from fireopd.cli.command_parser import CommandParser
from fireopd.cli.entry_points import GROUPS, load_plugins
from fireopd.cli.package_files import add_to_package, free_module, write_package
from fireopd.errors import UserError

__all__ = ["KINDS", "Kind", "checked_names", "run"]


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in."""

    group: str
    """Entry-point group, and the name of the module."""
    a_noun: str
    """Name of the kind with its article."""
    option: str
    """Option of `fireopd fit` that uses the plug-in `$name`."""


KINDS = {
    "filter": Kind("filters", "a filter", "--model.trajectory_filter $name"),
    "weighter": Kind("weighters", "a weighter", "--model.token_weighter $name"),
    "objective": Kind("objectives", "an objective", "--model.objective $name"),
    "teacher": Kind("teachers", "a teacher", "--model.teachers '{math: $name, code: $name}'"),
    "engine": Kind("engines", "a rollout engine", "--data.engine $name"),
    "plan": Kind("plans", "a rollout plan", "--data.plan $name"),
    "prompts": Kind("prompts", "a prompt source", "--data.prompts $name"),
    "verifier": Kind("verifiers", "a verifier", "--data.prompts.verifier $name"),
}
"""Kinds of plug-ins by their name on the command line."""
NEXT = """\
$folder contains $name, $a_noun that works. Edit
$place, then run:

  pip install -e '$folder$extra'
  pytest $tests
  fireopd plugins
  fireopd fit --config configs/multi_teacher.yaml $option
"""


def run(arguments: Sequence[str]) -> None:
    """Write a package, or add to one, and print the next commands."""
    parser = CommandParser("new", __doc__, "example: fireopd new weighter my_package.MyWeighter --into ../my-package")
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("plugin", metavar="PACKAGE.CLASS", help="package and class, for example my_package.MyWeighter")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="folder of a new or an existing package; default: the package name",
    )
    options = parser.parse_args(list(arguments))
    package, name = checked_names(options.plugin)
    folder = options.into or Path(package.replace("_", "-"))
    words = words_of(options.kind, package, name)
    try:
        if folder.is_dir():
            module = free_module(folder, package, (words["group"], words["snake"]))
            words["module"] = module.stem
            tests = str(add_to_package(folder, module, words))
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            extra = "[test]" if "test" in project.get("optional-dependencies", {}) else ""
        else:
            _check_new(folder, package)
            write_package(folder, words)
            module, tests, extra = folder / "src" / package / f"{words['module']}.py", str(folder), "[test]"
    except OSError as error:
        raise UserError("--into", str(folder), f"cannot be written: {error}", "use another folder") from error
    places = {"folder": str(folder), "place": str(module), "tests": tests, "extra": extra}
    print(Template(NEXT).substitute(words | places), end="")


def words_of(kind: str, package: str, name: str) -> dict[str, str]:
    """Return the value of each `$placeholder` in the templates of a kind of plug-in."""
    own = KINDS[kind]
    return {
        "kind": kind,
        "a_noun": own.a_noun,
        "noun": own.a_noun.partition(" ")[2],
        "option": Template(own.option).substitute(name=name),
        "group": own.group,
        "module": own.group,
        "package": package,
        "distribution": package.replace("_", "-"),
        "name": name,
        "snake": re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower(),
    }


def checked_names(plugin: str) -> tuple[str, str]:
    """Return package and class of `package.Class`.

    Raises:
        UserError: if a name is invalid, or the class name already in use.
    """
    package, dot, name = plugin.rpartition(".")
    for word in (package, name):
        if not dot or not word.isidentifier() or not word.isascii() or keyword.iskeyword(word):
            raise UserError("PACKAGE.CLASS", plugin, "not a package and a class", "use the form my_package.MyWeighter")
    if not name[0].isupper():
        raise UserError("PACKAGE.CLASS", name, "not a class name", "start it with a capital letter")
    if package != package.lower():
        raise UserError("PACKAGE.CLASS", package, "not a package name", f"use {package.lower()}")
    taken = {found.name for found in load_plugins()} | {base.__name__ for base in GROUPS.values()}
    if name in taken | set(fireopd.__all__) | {"Tensor"}:
        raise UserError(
            "PACKAGE.CLASS", name, "a class with this name already exists (fireopd plugins)", "choose another name"
        )
    return package, name


def _check_new(folder: Path, package: str) -> None:
    if folder.exists():
        raise UserError("--into", str(folder), "it already exists", "use a new folder")
    if importlib.util.find_spec(package) is not None:
        problem, remedy = "a package with this name already exists", "choose another name, or add to it with --into"
        raise UserError("PACKAGE.CLASS", package, problem, remedy)
