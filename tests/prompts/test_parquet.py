"""Prompts from Parquet files."""

import sys
from contextlib import suppress

import pyarrow
import pyarrow.parquet
import pytest
from helpers.fuzzing import FUZZED
from hypothesis import given
from hypothesis import strategies as st

from fireopd.errors import UserError
from fireopd.prompts import Columns, ParquetPrompts
from fireopd.prompts.parquet import read_parquet


def write(path, rows, **settings):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **settings)
    return path


def test_rows_are_numbered_from_0_over_all_row_groups(tmp_path):
    rows = [{"problem": f"p{n}", "answer": n, "teacher": "xy"[n % 2]} for n in range(2500)]
    path = write(tmp_path / "train.parquet", rows, row_group_size=700)
    texts = ParquetPrompts(path).training(0)
    assert [t.content[0]["content"] for t in texts] == [row["problem"] for row in rows]
    assert [(t.answer, t.teacher) for t in texts] == [(str(row["answer"]), row["teacher"]) for row in rows]
    assert texts[2499].id == f"{path}[2499]"


def test_the_columns_that_a_table_gives_to_all_messages_are_left_out_where_they_are_empty(tmp_path):
    rows = [
        {"prompt": [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": "u"}]},
        {"prompt": [{"role": "user", "content": "v"}]},
    ]
    texts = ParquetPrompts(write(tmp_path / "train.parquet", rows), teacher="x").training(0)
    assert texts[0].content == rows[0]["prompt"]
    assert texts[1].content == rows[1]["prompt"]


def test_only_columns_that_are_needed_are_read(tmp_path):
    rows = [{"q": "a", "meta": {"who": "x", "more": "y"}, "solution": "long" * 100}]
    path = write(tmp_path / "train.parquet", rows)
    columns = Columns(question="q", teacher="meta.who")
    table = read_parquet(path, "data.prompts.train", columns)
    assert table.columns == ["q", "meta", "solution"]
    assert [row.keys() for _, row in table.rows] == [{"q", "meta"}]


def test_a_table_without_rows_has_no_prompts(tmp_path):
    schema = pyarrow.schema([("problem", pyarrow.string())])
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([], schema=schema), path)
    assert ParquetPrompts(path).training(0) == []


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"problem": "a"}], {}, r"train.parquet\[0\].*names no teacher"),
        (
            [{"problem": "a"}, {"problem": None}],
            {"teacher": "x"},
            r"train.parquet\[1\].*the row has no problem and no prompt",
        ),
        ([{"question": "a"}], {"teacher": "x"}, r"train.parquet.*no column problem and no column prompt; .* question"),
        ([{"problem": "a", "answer": 0.5}], {"teacher": "x"}, r"train.parquet\[0\].*the answer is 0.5"),
        (
            [{"question": "a"}],
            {"teacher": "x", "columns": Columns(question="questions")},
            r"train.parquet.*no column questions; the columns are question\. Set .*columns.question to question",
        ),
    ],
)
def test_a_malformed_table_is_named_by_file_and_row(tmp_path, rows, settings, message):
    path = write(tmp_path / "train.parquet", rows)
    with pytest.raises(UserError, match=message):
        ParquetPrompts(path, **settings).training(0)


def test_what_is_no_parquet_file(tmp_path):
    (tmp_path / "text.parquet").write_text('{"problem": "a"}')
    for name in ("text.parquet", "nowhere.parquet"):
        with pytest.raises(UserError, match=rf"data.prompts.train: .*{name}.*cannot be read"):
            ParquetPrompts(tmp_path / name, teacher="x").training(0)


def test_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch):
    for name in ("pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"needs pyarrow, which is not installed.*pip install 'fireopd\[data\]'"):
        ParquetPrompts(tmp_path / "train.parquet", teacher="x").training(0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (pyarrow.array([b"a", b"\xff"]).view(pyarrow.string()), r"train.parquet\[1\].*cannot be read \('utf-8'"),
        (pyarrow.array([None, 2**62], pyarrow.timestamp("us")), r"train.parquet\[1\].*cannot be read \(date value"),
        (pyarrow.array([1, 1], pyarrow.timestamp("us", tz="No/Where")), r"train.parquet\[0\].*cannot be read"),
        (
            pyarrow.array([None, [("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int8())),
            r"\[1\].*the answer is \[\(",
        ),
    ],
)
def test_a_value_that_cannot_be_converted_is_named_by_file_and_row(tmp_path, answer, message):
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"problem": ["a", "b"], "answer": answer}), path)
    with pytest.raises(UserError, match=message):
        ParquetPrompts(path, teacher="x").training(0)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "train.parquet"
    return path, write(path, [{"problem": f"p{n}", "answer": n} for n in range(50)]).read_bytes()


@FUZZED
@given(st.integers(0, 10**6), st.one_of(st.none(), st.binary(min_size=1, max_size=8)))
def test_any_damage_of_a_file_is_harmless_or_refused(good, place, damage):
    """A file is cut at a place, or a few bytes are replaced there."""
    path, content = good
    place %= len(content)
    path.write_bytes(content[:place] if damage is None else content[:place] + damage + content[place + len(damage) :])
    with suppress(UserError):
        assert all(text.id.startswith(f"{path}[") for text in ParquetPrompts(path, teacher="x").training(0))
