"""Prompt sources: what they give, and what they say of a malformed file."""

import pytest

from fireopd.errors import UserError
from fireopd.prompts import JSONLPrompts, TinyPrompts


def test_training_and_held_out_problems_are_disjoint_and_seeded():
    source = TinyPrompts(num_training=400, num_validation=50)
    training = {seed: [text.origin for text in source.training(seed)] for seed in (1, 2)}
    held_out = [text.origin for text in source.validation()]
    assert len(held_out) == len(set(held_out)) == 100
    assert not set(held_out) & (set(training[1]) | set(training[2]))
    assert training[1] != training[2]
    assert training[1] == [text.origin for text in source.training(1)]


def test_rows_go_to_the_teacher_of_their_task():
    texts = TinyPrompts(teachers={"math": "alice", "code": "bob"}, num_training=6).training(0)
    assert [(text.task, text.teacher) for text in texts] == [("math", "alice"), ("code", "bob")] * 3


def test_an_unknown_embedded_task():
    with pytest.raises(ValueError, match="no embedded task 'law'; the tasks are math, code"):
        TinyPrompts(teachers={"law": "alice"})


def read(tmp_path, text, **settings):
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    return JSONLPrompts(path, **settings).training(0)


def test_rows_may_name_teacher_and_task(tmp_path):
    texts = read(
        tmp_path, '{"problem": "a", "answer": 0, "teacher": "x", "task": "t"}\n\n{"problem": "b"}\n', teacher="y"
    )
    assert [(t.teacher, t.task, t.answer) for t in texts] == [("x", "t", "0"), ("y", "prompts", None)]
    assert texts[1].origin.endswith("train.jsonl:3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"problem": "a"}\n{"problem": ', r"train.jsonl:2.*not JSON"),
        ('{"question": "a"}', r"train.jsonl:1.*neither"),
        ("[1, 2]", r"train.jsonl:1.*neither"),
        ('{"problem": ""}', r"train.jsonl:1.*neither"),
        ('{"prompt": [{"role": "user"}]}', r"train.jsonl:1.*neither"),
        ('{"prompt": [{"role": "user", "content": "a"}], "teacher": 3}', r"train.jsonl:1.*names no teacher"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text, teacher="x")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"data.prompts.val: .*nowhere.jsonl.*cannot be read"):
        JSONLPrompts(tmp_path, val=tmp_path / "nowhere.jsonl").validation()
    with pytest.raises(UserError, match="cannot be read"):
        JSONLPrompts(tmp_path).training(0)
    assert JSONLPrompts(tmp_path).validation() == []


def test_rows_without_a_teacher_and_no_default(tmp_path):
    with pytest.raises(UserError, match=r"names no teacher\. Add \"teacher\" to the row, or set data.prompts.teacher"):
        read(tmp_path, '{"problem": "a"}')
