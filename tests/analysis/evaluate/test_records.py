"""Records after a process was killed during a write."""

import pytest

from fireopd.analysis.evaluate.records import ProblemRecord, ResponseRecord, append_records, read_records
from fireopd.errors import UserError


def record(name, text="x"):
    return ProblemRecord(
        f"b:{name}", [{"role": "user", "content": "ü\u2028"}], None, (ResponseRecord(text, 3, True, None, None, 2**62),)
    )


def test_records_come_back_as_they_were(tmp_path):
    path = tmp_path / "new" / "b.jsonl"
    written = [record(1), record(2, 'two\nlines\u2028\x85"'), record(3, "\ud800")]
    append_records(path, written[:1])
    append_records(path, written[1:])
    assert list(read_records(path).values()) == written
    assert path.read_bytes().count(b"\n") == 3
    assert read_records(tmp_path / "none.jsonl") == {}


def test_half_a_line_is_taken_away_wherever_it_ends(tmp_path):
    path = tmp_path / "b.jsonl"
    append_records(path, [record(1), record(2)])
    whole = path.read_bytes()
    first = len(record(1).line)
    for end in (0, 1, first - 1, first, first + 1, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:end])
        kept = (end >= first) + (end == len(whole))
        assert len(read_records(path)) == kept
        append_records(path, [record(1), record(2)][kept:])
        assert path.read_bytes() == whole


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(record(1).line + '{"id": "b:2"}\n')
    with pytest.raises(UserError, match="b.jsonl:2.*not a record of a problem"):
        read_records(path)
