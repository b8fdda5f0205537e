"""Code blocks of README and documentation: Python runs, commands and YAML parse, the example package passes its tests.

The README's tutorial is executed as a whole in `tests/end_to_end/test_readme.py`, the notebooks by the build of the
documentation.
"""

import json
import tomllib
from functools import cache
from importlib.util import find_spec

import pytest
import yaml
from helpers.documentation import Shell, blocks, pages
from helpers.paths import CONFIGS, ROOT
from helpers.processes import in_a_process
from helpers.run_documentation import few_prompts, parse_command, prints, run, run_command

from fireopd.cli.main import COMMANDS

BLOCKS = {str(page.relative_to(ROOT)): blocks(page) for page in pages()}
PLUGINS = sorted(name for name in BLOCKS if name.startswith("docs/plugins/"))
OTHERS = sorted(BLOCKS.keys() - set(PLUGINS))
FILES = [block for name in PLUGINS for block in BLOCKS[name] if block.caption]
"""Files of the example package."""
PYTHON = sorted(
    name
    for name, own in BLOCKS.items()
    if name.startswith("docs/") and any(b.language == "python" and not b.gpu and not b.caption for b in own)
)
FIT_SCRIPTS = (["bash", "scripts/torchrun.sh"], ["sbatch", "scripts/slurm.sbatch"])
"""Programs that pass their arguments on to `fireopd fit`."""


def with_language(language):
    """Return the pages outside plugins/ that have blocks in a language."""
    return [name for name in OTHERS if any(block.language == language for block in BLOCKS[name])]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Function that runs the shell blocks of a page; returns their folder, and each command of fireopd with its block.

    The README's tutorial is left out: it has its own test.
    """

    @cache
    def run(name):
        shell, found = Shell(tmp_path_factory.mktemp("shell")), []
        for block in BLOCKS[name]:
            if block.language != "bash" or (name == "README.md" and "MyWeighter" in block.text):
                continue
            for command in shell.commands(block):
                if command[0] == "fireopd":
                    found.append((block, command[1:]))
                elif command[:2] in FIT_SCRIPTS:
                    found.append((block, ["fit", *command[2:]]))
        return shell.folder, found

    return run


def runs_here(block, arguments):
    """Return whether a command starts a run on the embedded models."""
    shown = block.gpu or block.page == "README.md" or prints(arguments)
    return arguments[0] in ("fit", "check") and not shown


@pytest.mark.parametrize("name", with_language("bash"))
def test_commands_parse(name, recorded, monkeypatch):
    folder, commands = recorded(name)
    monkeypatch.chdir(folder)
    for block, arguments in commands:
        assert arguments[0] in COMMANDS
        # serve needs vLLM before it parses
        if arguments[0] != "serve" and not runs_here(block, arguments):
            parse_command(arguments)


@pytest.fixture(scope="module")
def checked():
    """Arguments of runs that were checked; pages repeat some."""
    return set()


@pytest.mark.parametrize("name", with_language("bash"))
def test_runs_on_the_embedded_models_have_no_problems(name, recorded, monkeypatch, checked):
    folder, commands = recorded(name)
    monkeypatch.chdir(folder)
    for _, (_, *arguments) in [(block, own) for block, own in commands if runs_here(block, own)]:
        if "--ckpt_path" in arguments:
            place = arguments.index("--ckpt_path")
            del arguments[place : place + 2]
        if tuple(arguments) not in checked:
            with few_prompts():
                run_command(["check", *arguments])
        checked.add(tuple(arguments))


@pytest.mark.parametrize("name", with_language("yaml"))
def test_yaml_blocks_parse(name, tmp_path):
    for block in BLOCKS[name]:
        if "torchao" in block.text and find_spec("torchao") is None:
            continue
        if block.language == "yaml" and yaml.safe_load(block.text).keys() & {"model", "data", "trainer"}:
            path = tmp_path / "block.yaml"
            path.write_text(block.text)
            parse_command(["fit", "--config", str(CONFIGS / "multi_teacher.yaml"), "--config", str(path)])


def write_package(package):
    """Write the example package of the plug-in pages, installed as far as entry points go."""
    entry_points = {}
    for block in FILES:
        path = package / block.caption
        path.parent.mkdir(parents=True, exist_ok=True)
        if block.caption == "pyproject.toml":
            for group, names in tomllib.loads(block.text)["project"].get("entry-points", {}).items():
                entry_points.setdefault(group, {}).update(names)
        else:
            assert not path.exists(), f"{block.page}: {block.caption} exists"
            path.write_text(block.text)
    loose = [block for name in PLUGINS for block in BLOCKS[name] if block.language == "yaml" and not block.caption]
    for number, block in enumerate(loose):
        (package / f"block_{number}.yaml").write_text(block.text)
    (package / "src" / "my_plugins" / "__init__.py").touch()
    installed = package / "src" / "my_plugins-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugins\nVersion: 0.1.0\n")
    lines = []
    for group, names in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in names.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Errors of examples by name; they run in one process of their own, with the example package installed."""
    folder = tmp_path_factory.mktemp("documentation")
    package = folder / "package"
    write_package(package)
    (folder / "pages.json").write_text(json.dumps(PYTHON))
    code, said = in_a_process(folder, [package / "src"], run, folder)
    assert code == 0, said
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", PYTHON)
def test_python_blocks_run(name, results):
    assert not results[name], results[name]


def test_the_example_package_passes_its_tests(results):
    assert not results["tests"], results["tests"]


def test_every_example_plug_in_works_in_a_run(results):
    examined = {name: error for name, error in results.items() if name.endswith(".yaml")}
    assert len(examined) >= len([block for block in FILES if block.language == "yaml"]) > 0
    for name, error in examined.items():
        assert not error, f"{name}: {error}"


def test_commands_of_the_plug_in_pages_run(results):
    examined = {name: error for name, error in results.items() if ": fireopd " in name}
    assert examined
    for name, error in examined.items():
        assert not error, f"{name}: {error}"
