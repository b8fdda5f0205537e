"""`fireopd new KIND PACKAGE.CLASS`: write an installable package with a strategy that works, to be made yours.

KIND is filter, weighter or objective. The package has the entry point that makes the strategy known by its class name,
a test that examines its whole contract, and a README with the commands to go on with.
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

SETTINGS = {"filter": "trajectory_filter", "weighter": "token_weighter", "objective": "objective"}
"""Kinds of strategies that can be made, and the setting of a model that each goes into."""
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/$package/__init__.py": "package.py",
    "src/$package/$module.py": "$kind/strategy.py",
    "tests/test_$test.py": "$kind/test.py",
}
"""What is written, and the template that it is made from."""
NEXT = """\
$folder holds $name, $a_kind that works. To make it yours, edit
$folder/src/$package/$module.py. Then:

  pip install -e '$folder[test]'
  pytest $folder
  fireopd plugins
  fireopd fit --config configs/multi_teacher.yaml --model.$setting $name
"""


def run(arguments: Sequence[str]) -> None:
    """Write a package, and say what to do next."""
    parser = argparse.ArgumentParser(
        "fireopd new",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: fireopd new weighter my_package.MyWeighter --into ../my-package",
    )
    parser.add_argument("kind", choices=SETTINGS, metavar="KIND", help="filter, weighter or objective")
    parser.add_argument("strategy", metavar="PACKAGE.CLASS", help="as in my_package.MyWeighter; both are yours to name")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="the folder to write: the package's name, with dashes"
    )
    options = parser.parse_args(list(arguments))
    package, name = checked_names(options.strategy)
    folder = options.into or Path(package.replace("_", "-"))
    if folder.exists():
        raise UserError("--into", str(folder), "already there", "give a folder that is not")
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
        raise UserError("--into", str(folder), f"cannot be written: {error}", "give another folder") from error
    print(Template(NEXT).substitute(words), end="")


def checked_names(strategy: str) -> tuple[str, str]:
    """Return package and class of `package.Class`.

    Raises:
        UserError: if one of them cannot be written in Python, or is taken.
    """
    package, dot, name = strategy.rpartition(".")
    for word in (package, name):
        if not dot or not word.isidentifier() or not word.isascii() or keyword.iskeyword(word):
            raise UserError("PACKAGE.CLASS", strategy, "not a package and a class", "write it as my_package.MyWeighter")
    if not name[0].isupper():
        raise UserError("PACKAGE.CLASS", name, "not the name of a class", "start it with a capital letter")
    if package != package.lower():
        raise UserError("PACKAGE.CLASS", package, "not the name of a package", f"write {package.lower()}")
    taken = {plugin.strategy.__name__ for plugin in load_plugins()} | {base.__name__ for base in GROUPS.values()}
    if name in taken | set(fireopd.__all__) | {"Tensor"}:
        raise UserError("PACKAGE.CLASS", name, "there is such a class already (fireopd plugins)", "choose another name")
    if importlib.util.find_spec(package) is not None:
        raise UserError("PACKAGE.CLASS", package, "there is such a package already", "choose another name")
    return package, name


def write(folder: Path, words: dict[str, str]) -> None:
    """Write the package; the folder is complete, or not there.

    Args:
        folder: is made.
        words: what stands in the templates, and in the names of files, for each `$word`.
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
