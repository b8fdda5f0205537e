"""Old paths of public classes: importable, with a warning that names the new path."""

import json
import sys
import warnings
from importlib import import_module

import pytest
from helpers.paths import GOLDEN
from jsonargparse import ArgumentParser
from lightning.pytorch.strategies import Strategy

from fireopd import moved_paths

OLD = json.loads((GOLDEN / "class_paths_5b6120e.json").read_text())["classes"]
REMOVED = {"fireopd.checkpoints": {"DirectIO"}}
"""Classes without a successor: checkpoints are written without Lightning's `CheckpointIO`."""


@pytest.fixture(autouse=True)
def fresh():
    """Forget the aliases of earlier imports; modules with a file are not imported twice."""
    for name in moved_paths.MODULES:
        if getattr(sys.modules.get(f"fireopd.{name}"), "__file__", None) is None:
            sys.modules.pop(f"fireopd.{name}", None)


@pytest.mark.parametrize("module", OLD)
def test_every_class_of_the_old_tree_is_importable(module):
    for name in set(OLD[module]) - REMOVED.get(module, set()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = getattr(import_module(module), name)
        # A base class may have another name now; its old name is an alias.
        place = f"{found.__module__}.{found.__qualname__}"
        if caught:
            assert caught[0].category is FutureWarning
            assert f"{module}.{name} has moved to fireopd." in str(caught[0].message)
        assert getattr(import_module(found.__module__), found.__qualname__) is found, place


def test_a_class_path_in_yaml_names_the_new_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--strategy", type=Strategy)
    with pytest.warns(FutureWarning, match=r"has moved to fireopd\.distributed\.fsdp\.FSDP2Strategy; .* until version"):
        settings = parser.parse_args(["--strategy", "fireopd.sharding.FSDP2Strategy"])
    assert settings.strategy.class_path in ("fireopd.sharding.FSDP2Strategy", "fireopd.distributed.fsdp.FSDP2Strategy")


def test_an_unknown_name_or_module_stays_an_error():
    with pytest.raises(AttributeError):
        getattr(import_module("fireopd.sharding"), "nothing")  # noqa: B009 - an access by itself
    with pytest.raises(ModuleNotFoundError):
        import_module("fireopd.nowhere")


@pytest.mark.parametrize("module", moved_paths.MODULES)
def test_every_new_module_exists(module):
    assert import_module(f"fireopd.{moved_paths.MODULES[module]}")
