"""Benchmark files, and prompts made from their problems."""

import json

import pytest

from fireopd.analysis.evaluate.benchmarks import PromptFormat, distinct_benchmarks, read_benchmark
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.verifiers import ExactMatch, FinalAnswer


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_problems_are_called_by_their_own_id_or_their_line(tmp_path):
    rows = [
        {"problem": "1;+1", "answer": 2},
        {"problem": "2;+1", "answer": "3", "id": 7},
        {"prompt": "3;+1", "answer": "4", "task_id": "HumanEval/0", "id": "x"},
        {"prompt": [{"role": "user", "content": "4;+1"}], "answer": "5", "question_id": "abc_a"},
    ]
    benchmark = read_benchmark(write(tmp_path / "set.jsonl", *rows), FinalAnswer())
    assert [p.id for p in benchmark.problems] == ["set:1", "set:7", "set:HumanEval/0", "set:abc_a"]
    assert [p.answer for p in benchmark.problems] == ["2", "3", "4", "5"]
    assert benchmark.graded
    assert [p.id for p in benchmark.first(2).problems] == ["set:1", "set:7"]
    assert benchmark.first(None) == benchmark


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no problems"),
        ([{"answer": "1"}], "no column problem and no column prompt"),
        ([{"problem": "a", "id": 1}, {"problem": "b", "id": 1}], "another problem has the id set:1"),
        ([{"problem": "a", "id": 2}, {"problem": "b"}], "another problem has the id set:2"),
        ([{"problem": "a", "answer": "1"}, {"problem": "b"}], "some have none"),
        ([{"problem": "a", "id": "\ud83d"}], "set.jsonl:1.*the id contains an unpaired surrogate"),
        ([{"problem": "a", "id": 1.5}], "set.jsonl:1.*the id is 1.5, neither text nor an integer"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, rows, said):
    with pytest.raises(UserError, match=said) as raised:
        read_benchmark(write(tmp_path / "set.jsonl", *rows), FinalAnswer())
    assert raised.value.key == "--benchmark"


def test_two_files_of_the_same_name_and_one_that_is_missing_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [write(place / "set.jsonl", {"problem": "a", "answer": "1"}) for place in (tmp_path, tmp_path / "other")]
    with pytest.raises(UserError, match="another benchmark has the same name"):
        distinct_benchmarks([read_benchmark(path, FinalAnswer()) for path in paths])
    with pytest.raises(UserError, match="--benchmark: .*cannot be read"):
        read_benchmark(tmp_path / "none.jsonl", FinalAnswer())


def test_system_message_and_suffix_stand_around_the_problem(tmp_path):
    rows = [{"problem": "1;+1", "answer": "2"}, {"prompt": "2;+1", "answer": "3"}]
    benchmark = read_benchmark(write(tmp_path / "set.jsonl", *rows), FinalAnswer())
    tokenizer = load_tokenizer("tiny/student", "MODEL")
    chat, text = PromptFormat(system="abc", suffix="def").prompts(benchmark, tokenizer)
    assert chat.content == [{"role": "system", "content": "abc"}, {"role": "user", "content": "1;+1\ndef"}]
    assert text.content == "2;+1\ndef", "a text to go on from has no system message"
    assert chat.tokens == tuple(tokenizer.apply_chat_template(chat.content, add_generation_prompt=True)["input_ids"])
    plain = PromptFormat().prompts(benchmark, tokenizer)
    assert [p.content for p in plain] == [[{"role": "user", "content": "1;+1"}], "2;+1"]


def test_a_benchmark_keeps_the_verifier_that_grades_its_problems(tmp_path):
    verifier = ExactMatch(ignore_case=True)
    benchmark = read_benchmark(write(tmp_path / "set.jsonl", {"problem": "a", "answer": "B"}), verifier)
    (prompt,) = PromptFormat().prompts(benchmark, load_tokenizer("tiny/student", "MODEL"))
    assert benchmark.verifier == verifier
    assert benchmark.verifier.grade([prompt], ["b"])[0].reward == 1.0


def test_a_file_with_other_columns_has_a_remedy_of_the_command(tmp_path):
    (tmp_path / "other.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    with pytest.raises(UserError, match="no column problem .* Write {.problem.: ..., .answer.: ...} on each"):
        read_benchmark(tmp_path / "other.jsonl", FinalAnswer())
