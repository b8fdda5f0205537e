"""Discovery of plug-ins by their entry points."""

import gc
from importlib.metadata import EntryPoint
from inspect import isabstract

import pytest

from fireopd.cli import entry_points
from fireopd.cli.entry_points import GROUPS, load_plugins
from fireopd.cli.main import main
from fireopd.engines.vllm.teacher_engine import TeacherServerEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll, TrajectoryFilter


def subclasses(base):
    """Return all direct and indirect subclasses."""
    return {c for own in base.__subclasses__() for c in {own} | subclasses(own)}


def test_every_built_in_strategy_is_registered_under_its_name():
    found = {plugin.strategy for plugin in load_plugins()}
    for base in GROUPS.values():
        built_in = {c for c in subclasses(base) if c.__module__.startswith("fireopd.") and not isabstract(c)}
        built_in -= {TeacherServerEngine}  # created by a teacher, and no value of a setting
        assert built_in, base
        assert built_in <= found


def test_plugins_prints_group_package_signals_and_summary(capsys):
    main(["plugins"])
    table = capsys.readouterr().out
    lines = {line.split("│")[2].strip(): line for line in table.splitlines() if line.count("│") == 6}
    assert "fireopd.weighters" in table
    assert "student_entropy, teacher_entropy" in lines["EntropyWeighter"]
    assert "Larger weights for confident teachers" in lines["EntropyWeighter"]
    assert "none" in lines["KeepAll"]
    assert "depends on its settings" in lines["AllOf"]
    assert "distributions, student_logprobs, teacher_entropy, teacher_logprobs" in lines["EntropyGatedKL"]
    assert "distributions " in lines["GeneralizedJSD"]
    for plugin in load_plugins():
        assert plugin.summary.endswith("."), plugin.strategy


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KeepAll", "fireopd.weighters:UniformWeighter", "this plug-in is not a subclass of TrajectoryFilter"),
        ("KeepEverything", "fireopd.filters:KeepAll", "must have the name of its class, KeepAll"),
        ("Gone", "fireopd.filters:Gone", "cannot be imported"),
        ("Gone", "fireopd.nowhere:Gone", "cannot be imported"),
        ("TrajectoryFilter", "fireopd.filters:TrajectoryFilter", "this plug-in does not define __call__"),
    ],
)
def test_a_wrong_entry_point_is_named(name, value, message):
    with pytest.raises(UserError, match=f"fireopd.filters: {name}: '{value}': .*{message}.*package some-package"):
        entry_points._load(EntryPoint(name, value, "fireopd.filters"), TrajectoryFilter, "some-package")


BREAKING = {
    "RuntimeError": "raise RuntimeError('no license')",
    "ValueError": "raise ValueError('no license')",
    "OSError": "raise OSError('no license')",
    "AssertionError": "assert False, 'no license'",
    "SystemExit": "import sys; sys.exit('no license')",
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Install a distribution of weighters whose modules cannot be imported."""
    installed = tmp_path / "broken-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    lines = [f"Of{kind} = broken_{kind.lower()}:Of{kind}" for kind in BREAKING]
    (installed / "entry_points.txt").write_text("\n".join(["[fireopd.weighters]", *lines]))
    for kind, text in BREAKING.items():
        (tmp_path / f"broken_{kind.lower()}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_plug_ins_that_cannot_be_imported_are_listed_and_skipped(broken, capsys):
    assert {plugin.package for plugin in load_plugins()} >= {"fireopd"}
    assert not any(plugin.package == "broken" for plugin in load_plugins())
    main(["plugins"])
    printed = capsys.readouterr().out
    assert "EntropyWeighter" in printed
    for kind in BREAKING:
        value = f"Of{kind}: 'broken_{kind.lower()}:Of{kind}'"
        problem = f"this plug-in cannot be imported: {kind}: no license. Fix the package broken, or uninstall it."
        assert f"Skipped: fireopd.weighters: {value}: {problem}" in printed


HALF = """
from dataclasses import dataclass
from fireopd.filters import KeepAll
@dataclass(frozen=True)
class Whole(KeepAll):
    pass
@dataclass
class Half(KeepAll):
    pass
"""


def test_classes_of_a_module_that_fails_later_are_no_plug_ins(tmp_path, monkeypatch):
    """jsonargparse imports the modules of all subclasses of a setting's class."""
    installed = tmp_path / "half-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[fireopd.filters]\nWhole = half_made:Whole\nHalf = half_made:Half\n")
    (tmp_path / "half_made.py").write_text(HALF)
    monkeypatch.syspath_prepend(tmp_path)
    gc.disable()
    try:
        found = [broken.name for broken in entry_points.broken_plugins()]
        left = [own for own in KeepAll.__subclasses__() if own.__module__ == "half_made"]
    finally:
        gc.enable()
    assert found == ["Half", "Whole"]
    assert not left


@pytest.mark.parametrize("kind", BREAKING)
@pytest.mark.parametrize("form", ["class", "path"])
def test_a_plug_in_that_cannot_be_imported_is_refused_where_it_is_used(kind, form, broken, capsys):
    name = f"Of{kind}" if form == "class" else f"broken_{kind.lower()}.Of{kind}"
    with pytest.raises(SystemExit) as stop:
        main(["replay", "unread", "--out", "unwritten", "--token_weighter", name])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("fireopd: ")
    assert len(error.splitlines()) == 1
    assert f"this plug-in cannot be imported: {kind}: no license. Fix the package broken" in error


def test_a_module_that_no_package_registers_is_named(broken, capsys):
    (broken / "stray.py").write_text("raise RuntimeError('no license')")
    with pytest.raises(SystemExit) as stop:
        main(["replay", "unread", "--out", "unwritten", "--token_weighter", "stray.Weighter"])
    assert stop.value.code == 2
    assert "'stray': this module cannot be imported: RuntimeError: no license. Fix" in capsys.readouterr().err
