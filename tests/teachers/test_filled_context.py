"""Contexts that are filled in for each prompt."""

import json
from dataclasses import replace

import pytest

from fireopd.errors import UserError
from fireopd.models.loading import encode_chats, load_tokenizer
from fireopd.prompts import JSONLPrompts
from fireopd.prompts.columns import Columns
from fireopd.prompts.tokenization import tokenize
from fireopd.teachers import HFTeacher
from fireopd.teachers.context import TeacherContext
from fireopd.types import Prompt

ROW = {"problem": "1;+1", "solution": "1+1=2;#2", "answer": "2", "rubric": {"points": 3, "of": ["a"]}, "level": "hard"}


def user(text):
    return {"role": "user", "content": text}


def read(folder, *rows, columns=None):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = columns or Columns(solution="solution", details="rubric", extra=("level",))
    texts = JSONLPrompts(train=path, teacher="x", columns=columns).training(0)
    return tokenize(texts, load_tokenizer("tiny/student", "x"), {}, "data.prompts")


def test_messages_are_filled_in_with_the_parts_of_each_row(tmp_path):
    (prompt,) = read(tmp_path, ROW)
    text = r"{solution}|{answer}|{details.points}|{details.level}|\boxed{5} \boxed{{{answer}}} {} {{answer}} {{x}}"
    (message, own) = TeacherContext([user(text)]).chat(prompt)
    assert message == user(r"1+1=2;#2|2|3|hard|\boxed{5} \boxed{2} {} {answer} {x}")
    assert own == user("1;+1")
    assert (
        TeacherContext([user("a {answer}")]).chat(replace(prompt, answer="{solution}"))[0]["content"] == "a {solution}"
    )


def test_a_message_with_the_question_takes_its_place(tmp_path):
    (prompt,) = read(tmp_path, ROW)
    chat = [{"role": "system", "content": "s"}, user("old"), {"role": "assistant", "content": "a"}, user("1;+1")]
    context = TeacherContext([user("{question}?"), user("{question} = {answer}")])
    assert context.chat(replace(prompt, content=chat)) == [chat[0], user("1;+1?"), *chat[1:3], user("1;+1 = 2")]
    solved = [user("{question}"), {"role": "assistant", "content": "{solution}"}]
    assert TeacherContext(solved).chat(prompt) == [user("1;+1"), solved[1] | {"content": "1+1=2;#2"}, user("1;+1")]
    tokenizer = load_tokenizer("tiny/student", "x")
    assert context.prompt_tokens(prompt, tokenizer) == encode_chats(tokenizer, [context.chat(prompt)], {})[0]
    assert TeacherContext().prompt_tokens(prompt, tokenizer) is prompt.tokens


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([user("{solutoin}")], r"unknown placeholder \{solutoin\}, the known ones are .*write \{\{solutoin\}\} for"),
        ([{"role": "user"}], "must have messages with the keys role and content"),
    ],
)
def test_invalid_messages_are_refused_when_the_configuration_is_read(messages, message):
    with pytest.raises(ValueError, match=message):
        HFTeacher("tiny/math", context=messages)


@pytest.mark.parametrize(
    ("text", "row", "message"),
    [
        ("{solution}", {"solution": " "}, r"rows.jsonl:2': the context contains \{solution\}.* no solution"),
        ("{answer}", {"answer": None}, r"rows.jsonl:2'.*no answer.*columns.answer"),
        ("{details.note}", {}, r"rows.jsonl:1'.*no details.note; its details are points, of, level"),
        ("{details.of}", {}, r"rows.jsonl:1'.*details.of is a list"),
        ("{solution}", {"solution": "1" * 250}, r"rows.jsonl:2'.*do not fit into the teacher's context of 256"),
    ],
)
def test_a_missing_part_is_refused_with_file_and_row(tmp_path, text, row, message):
    prompts = read(tmp_path, ROW, ROW | row)
    teacher = HFTeacher("tiny/math", context=[user(text)])
    with pytest.raises(UserError, match=f"model.teachers.x.context: '.*{message}"):
        teacher.check("model.teachers.x", "tiny/student", prompts, 8)


def test_prompts_of_several_sources_may_have_equal_ids():
    tokenizer = load_tokenizer("tiny/student", "x")
    context = TeacherContext([user("{answer}")])
    rows = [Prompt((), "x", "t", answer, "1", [user("1;+1")], source=answer) for answer in "23"]
    first, second = (context.prompt_tokens(row, tokenizer) for row in rows)
    assert first != second
    context.check("x", rows, tokenizer, limit=None, response_length=8)


def test_extra_columns_must_exist(tmp_path):
    with pytest.raises(UserError, match="no column notes.*Set data.prompts.columns.extra"):
        read(tmp_path, ROW, columns=Columns(extra=("notes",)))
