"""Files of a plug-in package: a new package from templates, or a further module in an existing one."""

import re
import tempfile
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from fireopd import atomic_files
from fireopd.errors import UserError

__all__ = ["FILES", "add_to_package", "free_module", "with_entry_point", "write_package"]

MODULE = "$kind/plugin.py"
TEST = "$kind/test.py"
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/$package/__init__.py": "package.py",
    "src/$package/$module.py": MODULE,
    "tests/test_$snake.py": TEST,
}
"""Template by file of a new package."""


def rendered(source: str, words: Mapping[str, str]) -> str:
    """Return the text of a template, by its name, with every `$placeholder` replaced."""
    template = files("fireopd.cli") / "templates" / f"{Template(source).substitute(words)}.template"
    return Template(template.read_text(encoding="utf-8")).substitute(words)


def write_package(folder: Path, words: Mapping[str, str]) -> None:
    """Write a new package atomically.

    Args:
        folder: folder to create.
        words: value of each `$placeholder` in templates and file names.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch, "made")
        for target, source in FILES.items():
            path = made / Template(target).substitute(words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rendered(source, words), encoding="utf-8")
        made.rename(folder)


def free_module(folder: Path, package: str, names: tuple[str, ...]) -> Path:
    """Return the first module of a package in an existing folder that does not exist.

    Args:
        folder: folder with a `pyproject.toml`.
        package: name of the package, in `folder/src` or `folder`.
        names: names of modules, in the order of preference.

    Raises:
        UserError: if the folder has no `pyproject.toml` or no such package, or if all modules exist.
    """
    if not (folder / "pyproject.toml").is_file():
        problem = "it already exists, and holds no pyproject.toml"
        raise UserError("--into", str(folder), problem, "use a new folder, or that of a package")
    homes = [home for home in (folder / "src" / package, folder / package) if (home / "__init__.py").is_file()]
    if not homes:
        problem = f"it already exists, and holds no package {package}"
        raise UserError("--into", str(folder), problem, "use a new folder, or name the package that it holds")
    free = [homes[0] / f"{name}.py" for name in names if not (homes[0] / f"{name}.py").exists()]
    if not free:
        existing = " and ".join(f"{name}.py" for name in names)
        raise UserError("PACKAGE.CLASS", names[-1], f"{existing} exist in {homes[0]}", "choose another name")
    return free[0]


def add_to_package(folder: Path, module: Path, words: Mapping[str, str]) -> Path:
    """Add module, test and entry point to an existing package, or nothing; return the path of the test.

    Args:
        folder: folder of the package.
        module: module to create.
        words: value of each `$placeholder` in templates and file names.

    Raises:
        UserError: if a file exists, or if `pyproject.toml` cannot take the entry point.
        OSError: if a file cannot be written.
    """
    project, test = folder / "pyproject.toml", folder / "tests" / f"test_{words['snake']}.py"
    value = f"{words['package']}.{words['module']}:{words['name']}"
    with project.open(encoding="utf-8", newline="") as file:
        changed = with_entry_point(file.read(), f"fireopd.{words['group']}", words["name"], value, str(project))
    made: list[Path] = []
    try:
        for path, source in ((module, MODULE), (test, TEST)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(rendered(source, words))
        with atomic_files.replacing(project) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            file.write(changed)
    except BaseException as error:
        for path in made:
            path.unlink()
        if isinstance(error, FileExistsError):
            raise UserError(
                "PACKAGE.CLASS", words["name"], f"{error.filename} exists", "choose another name"
            ) from error
        raise
    return test


def with_entry_point(text: str, group: str, name: str, value: str, place: str) -> str:
    """Return the text of a `pyproject.toml` with a further entry point; all else stays as it is.

    Raises:
        UserError: if it is invalid, has the entry point already, or declares its entry points elsewhere.
    """
    remedy = f'add {name} = "{value}" to the entry points {group} yourself'
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError("--into", place, f"invalid TOML: {error}", "fix the file") from error
    project = before.get("project")
    if not isinstance(project, dict) or "entry-points" in project.get("dynamic", []):
        raise UserError("--into", place, "it has no static [project] table for entry points", remedy)
    points = project.get("entry-points", {})
    if any(name in own for key, own in points.items() if key.startswith("fireopd.")):
        raise UserError("PACKAGE.CLASS", name, f"{place} has an entry point of this name", "choose another name")
    end = "\r\n" if "\r\n" in text else "\n"
    line = f'{name} = "{value}"{end}'
    header = re.search(rf"""^\[project\.entry-points\.(["']){re.escape(group)}\1\][ \t]*(#.*)?\r?\n""", text, re.M)
    if header:
        changed = text[: header.end()] + line + text[header.end() :]
    else:
        changed = f'{text.rstrip()}{end}{end}[project.entry-points."{group}"]{end}{line}'
    expected = {
        **before,
        "project": {**project, "entry-points": {**points, group: {**points.get(group, {}), name: value}}},
    }
    try:
        if tomllib.loads(changed) == expected:
            return changed
    except tomllib.TOMLDecodeError:
        pass
    raise UserError("--into", place, "its entry points are written in another form", remedy)
