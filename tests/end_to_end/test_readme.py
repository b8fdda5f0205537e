"""The README's tutorial: every command in it runs, in order, and does what the text says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

from fireopd.cli.commands.new import KINDS
from fireopd.cli.entry_points import GROUPS
from fireopd.types.signals import SIGNALS

README = (ROOT / "README.md").read_text()
TUTORIAL = re.search(r"^## Write a weighter .*?(?=^## )", README, re.M | re.S)[0]
SHORT = "--data.prompts.num_training=16 --data.prompts.num_validation=0 --data.batch_size=8"
"""What makes a run of two steps out of one of 150."""


def blocks(language):
    """Return the blocks of the tutorial that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, re.M | re.S)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A shell in a copy of the checkout; what it installs goes to a folder of its own."""
    work = tmp_path_factory.mktemp("tutorial")
    for folder in ("bin", "checkout"):
        (work / folder).mkdir()
    (work / "checkout" / "configs").symlink_to(ROOT / "configs")
    install = f"shift\nexec {sys.executable} -m pip install -q --no-deps --no-build-isolation --target {work}/site"
    programs = {name: f"exec {sys.executable} -m {name}" for name in ("fireopd", "pytest")} | {"pip": install}
    for name, program in programs.items():
        (work / "bin" / name).write_text(f'#!/bin/sh\n{program} "$@"\n')
        (work / "bin" / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{work}/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{work}/site:{work}/my-package/src"

    def run(command):
        done = subprocess.run(
            ["bash", "-ec", command],
            capture_output=True,
            text=True,
            cwd=work / "checkout",
            env=environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def edit(path, lines):
    """Put each line in the place of the one line that is indented as it is and begins with the same word."""
    text = path.read_text()
    for line in lines.splitlines():
        start = re.match(r' *("""\w+|\w+)', line)[0]
        text, places = re.subn(rf"^{re.escape(start)}\b.*$", lambda _, line=line: line, text, flags=re.M)
        assert places == 1, f"{places} lines begin with {start!r}"
    path.write_text(text)


def test_the_tutorial_runs_from_idea_to_replay(shell):
    make, install, run = blocks("bash")
    (lines,) = blocks("python")
    assert len(lines.splitlines()) == 3, "three lines are to be edited"
    shell(make)
    module = Path(shell("cd .. && pwd").strip(), "my-package", "src", "my_package", "weighters.py")
    edit(module, lines)
    printed = shell(install)
    assert re.search(r"\d+ passed", printed)
    row = next(line for line in printed.splitlines() if "MyWeighter" in line)
    assert "my-package" in row
    assert "student_entropy" in row
    assert "Larger weights where the student is uncertain." in row
    printed = shell(run.replace("multi_teacher.yaml", f"multi_teacher.yaml {SHORT}"))
    assert json.loads(printed[printed.rindex("\n{") :])["trajectories"] == 8
    (saved,) = module.parents[3].glob("checkout/runs/mine/version_0/config.yaml")
    assert "my_package.weighters.MyWeighter" in saved.read_text()
    assert "power: 2.0" in saved.read_text()


def test_the_contract_table_is_that_of_the_classes():
    for kind in ("filter", "weighter", "objective"):
        row = next(line for line in TUTORIAL.splitlines() if line.startswith(f"| `{kind}`"))
        base = GROUPS[f"fireopd.{kind}s"]
        assert f"`{base.__name__}." in row
        assert row.endswith(f"`{base.setting}` |")
        assert f"--{base.setting} " in KINDS[kind].option


def test_the_tutorial_names_every_signal():
    assert [name for name in SIGNALS if f"`{name}`" not in TUTORIAL] == []


def test_the_table_of_methods_names_every_overlay():
    (table,) = re.findall(r"^\| family \| overlays \|.*?(?=\n\n)", README, re.M | re.S)
    named = re.findall(r"`(\w+)`", table)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "configs/methods").glob("*.yaml"))
