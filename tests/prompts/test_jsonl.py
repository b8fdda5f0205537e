"""Prompts from JSONL files, and messages about malformed ones."""

import json
from contextlib import suppress

import pytest
from helpers.fuzzing import FUZZED, VALUES
from hypothesis import given
from hypothesis import strategies as st

from fireopd.errors import UserError
from fireopd.prompts import JSONLPrompts


def read(tmp_path, text, **settings):
    path = tmp_path / "train.jsonl"
    path.write_text(text, encoding="utf-8")
    return JSONLPrompts(path, **settings).training(0)


def test_rows_may_name_teacher_and_task(tmp_path):
    texts = read(
        tmp_path, '{"problem": "a", "answer": 0, "teacher": "x", "task": "t"}\n\n{"problem": "b"}\n', teacher="y"
    )
    assert [(t.teacher, t.task, t.answer) for t in texts] == [("x", "t", "0"), ("y", "prompts", None)]
    assert texts[1].id.endswith("train.jsonl:3")


def test_a_problem_becomes_a_message_and_a_prompt_is_taken_as_it_is(tmp_path):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    rows = [{"problem": "a"}, {"prompt": "b"}, {"prompt": messages}, {"problem": "c", "prompt": "d"}]
    texts = read(tmp_path, "\n".join(json.dumps(row) for row in rows), teacher="x")
    assert [t.content for t in texts] == [
        [{"role": "user", "content": "a"}],
        "b",
        messages,
        [{"role": "user", "content": "c"}],
    ]


def test_a_line_ends_at_a_newline_only_and_a_byte_order_mark_is_no_part_of_it(tmp_path):
    text = '\ufeff{"problem": "a\u2028b\u0085c"}\r\n{"problem": "d"}'
    assert [t.content[0]["content"] for t in read(tmp_path, text, teacher="x")] == ["a\u2028b\u0085c", "d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"problem": "a"}\n{"problem": ', r"data.prompts.train: .*train.jsonl:2.*not JSON"),
        ('{"problem": "a"}\n[1, 2]', r"train.jsonl:2.*not an object"),
        (
            '{"question": "a"}',
            r"train.jsonl.*no column problem and no column prompt.*columns are question\. Set data.prompts.col",
        ),
        ('{"problem": "a"}\n{"question": "b"}', r"train.jsonl:2.*the row has no problem and no prompt"),
        ('{"problem": ""}', r"train.jsonl:1.*empty"),
        ('{"problem": " \\n"}', r"train.jsonl:1.*empty"),
        ('{"problem": 3}', r"train.jsonl:1.*neither text nor chat messages"),
        ('{"prompt": []}', r"train.jsonl:1.*empty"),
        ('{"prompt": [{"role": "user"}]}', r"train.jsonl:1.*neither text nor chat messages"),
        ('{"prompt": [{"role": "user", "content": "a"}, {"role": "user", "content": ""}]}', r"train.jsonl:1.*empty"),
        ('{"prompt": [{"role": "user", "content": "a"}], "teacher": 3}', r"train.jsonl:1.*names no teacher"),
        ('{"problem": "a", "teacher": ""}', r"train.jsonl:1.*names no teacher"),
        ('{"problem": "a", "answer": 72.0}', r"train.jsonl:1.*the answer is 72.0, neither text nor an integer"),
        ('{"problem": "a", "answer": ["1"]}', r"train.jsonl:1.*the answer is \['1'\]"),
        ('{"problem": "a", "answer": true}', r"train.jsonl:1.*the answer is True"),
        ('{"problem": "a\\ud83d"}', r"train.jsonl:1.*the question contains an unpaired surrogate \('\\ud83d'\)"),
        (
            '{"prompt": [{"role": "user", "content": "\\ude00"}]}',
            r"train.jsonl:1.*the prompt contains an unpaired",
        ),
        ('{"problem": "a", "answer": "\\ude00"}', r"train.jsonl:1.*the answer contains an unpaired surrogate"),
        ('{"problem": "a", "task": {}}', r"train.jsonl:1.*the task is {}"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text, teacher="x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"problem": "a"}\n{"problem": "\xff"}', r"train.jsonl:2.*not UTF-8 \(byte 0xff at column 14\)"),
        ('{"problem": "a"}'.encode("utf-16"), r"train.jsonl:1.*not UTF-8"),
        (b'{"problem": "a\0"}', r"train.jsonl:1.*not JSON \(Invalid control character at column 15\)"),
        (b"\0\0", r"train.jsonl:1.*not JSON"),
        (b"[" * 100_000, r"train.jsonl:1.*nested too deeply"),
        (b'{"problem": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", r"train.jsonl:1.*nested too deeply"),
        (b'{"problem": "a", "answer": ' + b"1" * 5000 + b"}", r"train.jsonl:1.*a number has too many digits"),
        (b'{"problem": "a"}\n{"\\ud800": 1}', r"train.jsonl:2.*a name contains an unpaired surrogate"),
        (b'{"problem": "a", "answer": ' + b"[" * 500 + b"]" * 500 + b"}", r"train.jsonl:1.*the answer is \[+\.\.\."),
    ],
)
def test_a_line_that_is_no_json_is_named(tmp_path, content, message):
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        JSONLPrompts(tmp_path / "train.jsonl", teacher="x").training(0)
    assert len(str(error.value)) < 500


NAMES = st.sampled_from(["problem", "prompt", "answer", "teacher", "task", "\ud800"])
ROWS = st.dictionaries(NAMES, VALUES, max_size=3).map(lambda row: json.dumps(row).encode())
PIECES = st.sampled_from(
    (b'{"problem": ', b'"a"', b"}", b"\n", b"[", b"1" * 5000, b"1e999", b"\xff", b"\0", b"\xef\xbb\xbf", b"[" * 2000)
)


@FUZZED
@given(st.lists(ROWS | st.lists(PIECES, max_size=4).map(b"".join), min_size=1, max_size=3))
def test_any_file_is_read_or_refused(tmp_path, lines):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join(lines))
    with suppress(UserError):
        texts = JSONLPrompts(path, teacher="x").training(0)
        assert all(text.id.startswith(f"{path}:") for text in texts)
        str(texts).encode()  # no unpaired surrogates


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"data.prompts.val: .*nowhere.jsonl.*cannot be read"):
        JSONLPrompts(tmp_path, val=tmp_path / "nowhere.jsonl").validation()
    with pytest.raises(UserError, match="cannot be read"):
        JSONLPrompts(tmp_path).training(0)
    assert JSONLPrompts(tmp_path).validation() == []


def test_rows_without_a_teacher_and_no_default(tmp_path):
    with pytest.raises(UserError, match=r"names no teacher\. Add \"teacher\" to the row, or set data.prompts.teacher"):
        read(tmp_path, '{"problem": "a"}')
