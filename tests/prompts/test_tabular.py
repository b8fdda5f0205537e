"""Prompts from tables: columns and held-out prompts."""

import json
import random

import pytest

from fireopd.errors import UserError
from fireopd.prompts import Columns, JSONLPrompts
from fireopd.prompts.columns import lookup


def source(tmp_path, rows, **settings):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return JSONLPrompts(path, **({"teacher": "x"} | settings))


def test_columns_may_have_any_names_and_be_nested(tmp_path):
    columns = Columns(
        question="q", answer="solution.final", teacher="meta.who", task="meta.kind", id="uid", details="meta"
    )
    row = {"q": "a", "solution": {"final": 3}, "meta": {"who": "y", "kind": "t"}, "uid": "u-7", "problem": "not this"}
    (text,) = source(tmp_path, [row], columns=columns).training(0)
    assert text.content == [{"role": "user", "content": "a"}]
    assert (text.answer, text.teacher, text.task, text.details) == ("3", "y", "t", row["meta"])
    assert text.id == f"{tmp_path}/train.jsonl:u-7"


@pytest.mark.parametrize(
    ("row", "path", "expected"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", 2),
        ({"a": {"b.c": 3}}, "a.b.c", 3),
        ({"a": [1]}, "a.b", None),
        ({"a": None}, "a.b", None),
        ({"a": {}}, "a", {}),
        ({}, "a", None),
    ],
)
def test_a_path_leads_into_nested_columns(row, path, expected):
    assert lookup(row, path) == expected


def test_of_usual_names_a_table_may_lack_any_and_null_is_as_good_as_nothing(tmp_path):
    rows = [{"problem": "a", "answer": None, "teacher": None, "task": None}, {"problem": "b"}]
    texts = source(tmp_path, rows, task="t").training(0)
    assert [(t.answer, t.teacher, t.task) for t in texts] == [(None, "x", "t")] * 2


def test_a_column_that_is_named_must_be_there(tmp_path):
    rows = [{"problem": "a", "solution": "1", "meta": {"who": "y"}}]
    with pytest.raises(UserError, match=r"no column solutoin; the columns are problem, solution, meta.*to solution"):
        source(tmp_path, rows, columns=Columns(answer="solutoin")).training(0)
    with pytest.raises(UserError, match=r"the column meta.name is empty in all rows\. Fix .*columns.teacher"):
        source(tmp_path, rows, columns=Columns(teacher="meta.name")).training(0)
    with pytest.raises(UserError, match=r"train.jsonl:1.*the column solution has no nested columns"):
        source(tmp_path, rows, columns=Columns(details="solution")).training(0)


def test_an_empty_name_is_not_looked_for(tmp_path):
    rows = [{"problem": "a", "prompt": "b", "teacher": "y", "answer": 1.5}]
    (text,) = source(tmp_path, rows, columns=Columns(question="", teacher="", answer="")).training(0)
    assert (text.content, text.teacher, text.answer) == ("b", "x", None)
    with pytest.raises(ValueError, match="must not both be empty"):
        Columns(question="", prompt="")


def test_a_held_out_prompt_is_not_trained_on_and_is_the_same_in_any_order(tmp_path):
    rows = [{"problem": f"{n % 40}", "answer": n % 40} for n in range(60)]
    random.Random(0).shuffle(rows)
    contents = []
    for order in (rows, rows[::-1]):
        own = source(tmp_path, order, held_out=10)
        training, held_out = ({t.answer for t in texts} for texts in (own.training(0), own.validation()))
        assert len(own.validation()) == 10
        assert not training & held_out, "a prompt of two rows is on one side"
        assert len(training | held_out) == 40
        contents.append(held_out)
    assert contents[0] == contents[1]
    assert source(tmp_path, rows).validation() == []


def test_what_is_held_out_and_a_validation_table_are_two_things(tmp_path):
    own = source(tmp_path, [{"problem": "a"}], held_out=1)
    with pytest.raises(UserError, match="there is a validation table, and held_out is 1"):
        JSONLPrompts(own.train, own.train, teacher="x", held_out=1).validation()
    with pytest.raises(ValueError, match="held_out must be at least 0, got -1"):
        JSONLPrompts(own.train, held_out=-1)
