"""The script that draws function-writing tasks: tests that a solution passes, files that a seed reproduces."""

import json
import random
import runpy
import sys
from itertools import islice

import pytest
from helpers.paths import ROOT

from fireopd.verifiers.test_cases import read_tests


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "make_function_tasks.py"))


def test_tasks_differ_and_their_tests_agree_with_the_examples(script):
    rows = list(islice(script["tasks"](random.Random(0)), 200))
    assert len({row["problem"] for row in rows}) == 200
    for row in rows:
        tests = json.loads(row["answer"])["tests"]
        assert read_tests(row["answer"]).names == ("transform",)
        assert len(tests) == script["EXAMPLES"] + script["TESTS"]
        call, _, result = tests[0].removeprefix("assert ").partition(" == ")
        assert f">>> {call}\n    {result}\n" in row["problem"]


def test_every_step_and_result_computes_what_it_says(script):
    inputs = {"NUMBER": [12, -7, 12, 3, 0, 40, 8, 8, 1, 5], "TEXT": "abcdebua"}
    said = {
        step.text.format(k=3): eval(step.code.format(k=3), {"x": inputs[kind]})
        for kind in inputs
        for step in (*script[f"{kind}_STEPS"], *(step for _, step in script[f"{kind}_RESULTS"]))
    }
    assert said["keep the elements that are divisible by 3"] == [12, 12, 3, 0]
    assert said["replace the list by its running totals"][:4] == [12, 5, 17, 20]
    assert said["replace each element by the sum of its digits, without sign"][:2] == [3, 7]
    assert said["drop the elements whose absolute value is below 3"] == [12, -7, 12, 3, 40, 8, 8, 5]
    assert said["shift each letter 3 places forward in the alphabet, and start again after z"] == "defghexd"
    assert said["the pieces of the result of 3 characters each, the last one possibly shorter"] == ["abc", "deb", "ua"]
    assert said["move the first 3 characters to the end"] == "debuaabc"


def test_a_seed_reproduces_the_files_which_share_no_task(script, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_function_tasks.py", *map(str, arguments)])
        script["main"]()

    run(tmp_path / "one", "--train", 20, "--val", 5)
    run(tmp_path / "two", "--train", 30, "--val", 5)
    one, two = ((tmp_path / name / "train.jsonl").read_text().splitlines() for name in ("one", "two"))
    assert two[:20] == one
    assert not {*(tmp_path / "one" / "val.jsonl").read_text().splitlines()} & {*one}
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "three", "--train", 10**6)
    assert "Choose 0 to 20000 tasks" in capsys.readouterr().err
