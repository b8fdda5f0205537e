"""Discovery of plug-ins by their entry points."""

from importlib.metadata import EntryPoint
from inspect import isabstract

import pytest

from fireopd.cli import entry_points
from fireopd.cli.entry_points import GROUPS, load_plugins
from fireopd.cli.main import main
from fireopd.errors import UserError
from fireopd.filters import TrajectoryFilter


def subclasses(base):
    """Return all direct and indirect subclasses."""
    return {c for own in base.__subclasses__() for c in {own} | subclasses(own)}


def test_every_built_in_strategy_is_registered_under_its_name():
    found = {plugin.strategy for plugin in load_plugins()}
    for base in GROUPS.values():
        built_in = {c for c in subclasses(base) if c.__module__.startswith("fireopd.") and not isabstract(c)}
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
    ],
)
def test_a_wrong_entry_point_is_named(name, value, message):
    with pytest.raises(UserError, match=f"fireopd.filters: {name}: '{value}': .*{message}.*package some-package"):
        entry_points._load(EntryPoint(name, value, "fireopd.filters"), TrajectoryFilter, "some-package")
