"""Beds and varied settings of a comparison."""

from pathlib import Path

import pytest

from fireopd.analysis.compare.conditions import beds, check_effect, variations
from fireopd.cli.compared_methods import methods_to_train
from fireopd.errors import UserError


def test_beds_are_named_as_their_files(tmp_path):
    paths = [tmp_path / name for name in ("a.yaml", "sub/a.yaml", "b.yaml")]
    (tmp_path / "sub").mkdir()
    for path in paths:
        path.write_text("data: {}\n")
    first, second = beds([paths[0], paths[2]])
    assert (first.name, first.before, first.after, second.name) == ("a", ["--config", str(paths[0])], [], "b")
    with pytest.raises(UserError, match=r"a.yaml has the same name"):
        beds(paths)
    with pytest.raises(UserError, match="no such file"):
        beds([tmp_path / "c.yaml"])


def test_all_combinations_of_values_come_after_the_method():
    found = variations(["model.clip_ratio=0.1,0.2", "model.token_weighter=UniformWeighter,{class_path: A/B}"])
    assert [condition.after for condition in found[:2]] == [
        ["--model.clip_ratio=0.1", "--model.token_weighter=UniformWeighter"],
        ["--model.clip_ratio=0.1", '--model.token_weighter={"class_path": "A/B"}'],
    ]
    assert len(found) == 4
    assert found[0].name == "model.clip_ratio=0.1,model.token_weighter=UniformWeighter"
    assert "/" not in found[1].name
    assert variations(["--a=null,1"])[0].after == ["--a=null"]


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        (["a"], "at least two values"),
        (["a=1"], "at least two values"),
        (["a=1,1"], "a value occurs twice"),
        (["a=[,"], "not YAML"),
        (["a=1,2", "a=3,4"], "a occurs twice"),
        (["a=1,2", "b=3,4", "c=1,2"], "3 settings. Vary at most 2"),
    ],
)
def test_bad_variations_are_refused(texts, part):
    with pytest.raises(UserError, match=part):
        variations(texts)


def test_a_condition_without_effect_is_refused():
    settings = {("x", "opd"): {"lr": 1}, ("y", "opd"): {"lr": 2}, ("x", "fire"): {"lr": 1}}
    check_effect(settings, "--beds")
    with pytest.raises(UserError, match="--beds: 'y': fire has the same settings there as under x"):
        check_effect(settings | {("y", "fire"): {"lr": 1}}, "--beds")


def test_a_method_is_a_file_or_an_installed_strategy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opd.yaml").write_text("model: {}\n")
    found = methods_to_train([Path("SurpriseFilter"), Path("opd.yaml"), Path("EntropyWeighter")])
    assert list(found) == ["SurpriseFilter", "opd", "EntropyWeighter"]
    assert found["opd"] == ["--config", "opd.yaml"]
    assert found["EntropyWeighter"] == [
        "--model.trajectory_filter=KeepAll",
        "--model.token_weighter=EntropyWeighter",
        "--model.objective=ReverseKL",
    ]
    with pytest.raises(UserError, match="no such file"):
        methods_to_train([Path("Nope")])
