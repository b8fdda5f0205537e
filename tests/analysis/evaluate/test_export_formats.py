"""Exports against the file formats in the documentation of the external evaluators."""

import json

from fireopd.analysis.evaluate.export_formats import export, program
from fireopd.analysis.evaluate.output_folder import EvaluationFolder
from fireopd.analysis.evaluate.records import ProblemRecord, ResponseRecord

TWO = "First\n```python\nold = 1\n```\nthen\n```py\ndef f():\n    return '``'\n```\nDone."


def record(name, *texts):
    return ProblemRecord(f"set:{name}", "", None, tuple(ResponseRecord(t, 1, True, None, None, 0) for t in texts))


RECORDS = [record("HumanEval/0", TWO, "return 1"), record("HumanEval/1", "```\nx\n```", "")]


def test_the_program_is_the_last_fenced_block_or_everything():
    assert program(TWO) == "def f():\n    return '``'"
    assert program("no block, `code`") == "no block, `code`"
    assert program("```python\nnever closed") == "```python\nnever closed"
    assert program("  ```\n  a\n  ```") == "  a"
    assert program("~~~\na\n~~~\n```b``` it is.\n```") == "a"
    assert program("````\n```\na\n```\n````") == "```\na\n```", "a longer fence holds shorter ones"


def test_evalplus_reads_a_line_for_each_response(tmp_path):
    path = export("evalplus", EvaluationFolder(tmp_path), "tiny/student", "set", RECORDS)
    assert path == tmp_path / "exports" / "tiny--student" / "set.evalplus.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["task_id"] for row in rows] == ["HumanEval/0", "HumanEval/0", "HumanEval/1", "HumanEval/1"]
    assert [row["solution"] for row in rows] == ["def f():\n    return '``'", "return 1", "x", ""]
    assert {key for row in rows for key in row} == {"task_id", "solution"}


def test_livecodebench_reads_a_list_of_questions(tmp_path):
    path = export("livecodebench", EvaluationFolder(tmp_path), "m", "set", RECORDS)
    assert path.suffix == ".json"
    assert json.loads(path.read_text()) == [
        {"question_id": "HumanEval/0", "code_list": ["def f():\n    return '``'", "return 1"]},
        {"question_id": "HumanEval/1", "code_list": ["x", ""]},
    ]
