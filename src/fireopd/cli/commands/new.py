"""`fireopd new KIND PACKAGE.CLASS`: create an installable package with a working strategy to start from.

KIND is filter, weighter or objective. The package contains the strategy, its entry point, a test of its contract, and a
README with the next commands.
"""

import argparse
import importlib.util
import keyword
import re
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import fireopd
from fireopd.cli.entry_points import GROUPS, load_plugins
from fireopd.errors import UserError

__all__ = ["SETTINGS", "checked_names", "run", "write"]

SETTINGS = {"filter": "trajectory_filter", "weighter": "token_weighter", "objective": "objective"}
"""Setting of a model by kind of strategy."""
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/$package/__init__.py": "package.py",
    "src/$package/$module.py": "$kind/strategy.py",
    "tests/test_$test.py": "$kind/test.py",
}
"""Template by file of the package."""
NEXT = """\
$folder contains $name, $a_kind that works. Edit
$folder/src/$package/$module.py, then run:

  pip install -e '$folder[test]'
  pytest $folder
  fireopd plugins
  fireopd fit --config configs/multi_teacher.yaml --model.$setting $name
"""


def run(arguments: Sequence[str]) -> None:
    """Write a package and print the next commands."""
    parser = argparse.ArgumentParser(
        "fireopd new",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: fireopd new weighter my_package.MyWeighter --into ../my-package",
    )
    parser.add_argument("kind", choices=SETTINGS, metavar="KIND", help="filter, weighter or objective")
    parser.add_argument(
        "strategy", metavar="PACKAGE.CLASS", help="package and class, for example my_package.MyWeighter"
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="folder to write; default: the package name with dashes"
    )
    options = parser.parse_args(list(arguments))
    package, name = checked_names(options.strategy)
    folder = options.into or Path(package.replace("_", "-"))
    if folder.exists():
        raise UserError("--into", str(folder), "it already exists", "use a new folder")
    words = {
        "kind": options.kind,
        "a_kind": f"{'an' if options.kind == 'objective' else 'a'} {options.kind}",
        "setting": SETTINGS[options.kind],
        "module": f"{options.kind}s",
        "package": package,
        "distribution": package.replace("_", "-"),
        "name": name,
        "test": re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower(),
        "folder": str(folder),
    }
    try:
        write(folder, words)
    except OSError as error:
        raise UserError("--into", str(folder), f"cannot be written: {error}", "use another folder") from error
    print(Template(NEXT).substitute(words), end="")


def checked_names(strategy: str) -> tuple[str, str]:
    """Return package and class of `package.Class`.

    Raises:
        UserError: if a name is invalid or already in use.
    """
    package, dot, name = strategy.rpartition(".")
    for word in (package, name):
        if not dot or not word.isidentifier() or not word.isascii() or keyword.iskeyword(word):
            raise UserError(
                "PACKAGE.CLASS", strategy, "not a package and a class", "use the form my_package.MyWeighter"
            )
    if not name[0].isupper():
        raise UserError("PACKAGE.CLASS", name, "not a class name", "start it with a capital letter")
    if package != package.lower():
        raise UserError("PACKAGE.CLASS", package, "not a package name", f"use {package.lower()}")
    taken = {plugin.strategy.__name__ for plugin in load_plugins()} | {base.__name__ for base in GROUPS.values()}
    if name in taken | set(fireopd.__all__) | {"Tensor"}:
        raise UserError(
            "PACKAGE.CLASS", name, "a class with this name already exists (fireopd plugins)", "choose another name"
        )
    if importlib.util.find_spec(package) is not None:
        raise UserError("PACKAGE.CLASS", package, "a package with this name already exists", "choose another name")
    return package, name


def write(folder: Path, words: dict[str, str]) -> None:
    """Write the package atomically.

    Args:
        folder: folder to create.
        words: value of each `$placeholder` in templates and file names.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    templates = files("fireopd.cli") / "templates"
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch, "made")
        for target, source in FILES.items():
            text = (templates / f"{Template(source).substitute(words)}.template").read_text(encoding="utf-8")
            path = made / Template(target).substitute(words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(text).substitute(words), encoding="utf-8")
        made.rename(folder)
