"""Strategies are found by their entry points, in our own package as in anybody's."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from inspect import isabstract
from pathlib import Path

import pytest

from fireopd import plugins
from fireopd.cli import main
from fireopd.errors import UserError
from fireopd.filters import TrajectoryFilter
from fireopd.plugins import GROUPS, load_plugins

EXAMPLE = Path(__file__).parent / "plugin_example"


def concrete_subclasses(base):
    own = base.__subclasses__()
    return {c for c in own if not isabstract(c)}.union(*(concrete_subclasses(c) for c in own))


def test_every_built_in_strategy_is_registered_under_its_name():
    found = {plugin.strategy for plugin in load_plugins()}
    for base in GROUPS.values():
        built_in = {c for c in concrete_subclasses(base) if c.__module__.startswith("fireopd.")}
        assert built_in, base
        assert built_in <= found


def test_plugins_prints_group_package_signals_and_summary(capsys):
    main(["plugins"])
    table = capsys.readouterr().out
    lines = {line.split("│")[2].strip(): line for line in table.splitlines() if line.count("│") == 6}
    assert "fireopd.weighters" in table
    assert "student_entropy, teacher_entropy" in lines["EntropyWeighter"]
    assert "More weight where the teacher is confident" in lines["EntropyWeighter"]
    assert "none" in lines["KeepAll"]
    assert "those of its parts" in lines["AllOf"]
    assert "distributions, student_logprobs, teacher_entropy, teacher_logprobs" in lines["EntropyGatedKL"]
    assert "distributions " in lines["GeneralizedJSD"]
    for plugin in load_plugins():
        assert plugin.summary.endswith("."), plugin.strategy


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KeepAll", "fireopd.weighters:UniformWeighter", "this plug-in is no subclass of TrajectoryFilter"),
        ("KeepEverything", "fireopd.filters:KeepAll", "must have the name of its class, KeepAll"),
        ("Gone", "fireopd.filters:Gone", "cannot be imported"),
        ("Gone", "fireopd.nowhere:Gone", "cannot be imported"),
    ],
)
def test_a_wrong_entry_point_is_named(name, value, message):
    with pytest.raises(UserError, match=f"fireopd.filters: {name}: '{value}': .*{message}.*package some-package"):
        plugins._load(EntryPoint(name, value, "fireopd.filters"), TrajectoryFilter, "some-package")


@pytest.fixture(scope="module")
def installed_example(tmp_path_factory):
    """The example package, built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin_example"
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(command, check=True, timeout=300)
    return target


def run(site, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from fireopd.cli import main; main()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False
    )


def test_a_stranger_s_weighter_is_listed_and_trains_by_its_bare_name(installed_example, tmp_path):
    listed = run(installed_example, tmp_path, "plugins")
    row = next(line for line in listed.stdout.splitlines() if "GapWeighter" in line)
    assert "fireopd-gap" in row
    assert "student_logprobs, teacher_logprobs" in row
    config = Path(__file__).parents[1] / "configs" / "opd.yaml"
    short = ["--data.prompts.num_training=16", "--data.prompts.num_validation=0", "--data.batch_size=8"]
    weighter = ["--model.token_weighter=GapWeighter", "--model.token_weighter.power=2"]
    root = f"--trainer.default_root_dir={tmp_path}/run"
    trained = run(installed_example, tmp_path, "fit", f"--config={config}", *short, *weighter, root)
    assert trained.returncode == 0, trained.stderr
    saved = next(Path(tmp_path, "run").rglob("config.yaml")).read_text()
    assert "fireopd_gap.weighters.GapWeighter" in saved
    assert "power: 2.0" in saved
