"""Values between a program and its tests, and user ids of programs."""

import json
from collections import Counter, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from fireopd.verifiers.sandbox.namespaces import unused_user
from fireopd.verifiers.sandbox.value_codec import Sharing, contents, decode, encode, update


def there(value):
    """Return a value as it arrives; what is not plain data arrives as text."""
    numbered = []

    def refer(item):
        numbered.append(item)
        return {"reference": len(numbered) - 1}

    return decode(json.loads(json.dumps(encode(value, refer, Sharing()))), resolve, Sharing())


def resolve(name, number):
    if name != "reference" or type(number) is not int:
        raise ValueError(name)
    return f"object {number}"


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**80), 1.5, float("inf"), "", "a\ud800", b"\x00\xff", bytearray(b"a"), 1 + 2j, [], (), set(),
     frozenset({1}), {}, {1: [2, (3, {"a": {4}})], (5, None): {6.0}}, [[[[]]]], {"list": [1]}, {"reference": 0},
     Fraction(1, 3), Decimal("1.50"), Decimal("NaN"), date(2020, 1, 2), datetime(2020, 1, 2, 3, 4, 5, 6), time(3, 4),
     timedelta(-1, 2), datetime(2020, 1, 2, tzinfo=UTC), range(1, 9, 2), deque([1, [2]])],
)  # fmt: skip
def test_plain_data_arrives_as_it_was(value):
    assert repr(there(value)) == repr(value)
    assert type(there(value)) is type(value)


def test_nothing_arrives_that_could_say_of_itself_that_it_is_equal():
    class Yes(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    class Later(date):
        def isoformat(self):
            return "2030-01-01"

        __eq__ = Yes.__eq__

    assert there(Later(2020, 1, 2)) == date(2020, 1, 2)
    assert type(there(Later(2020, 1, 2))) is date
    assert type(there(Yes(3))) is int
    assert type(there([Yes(3)])[0]) is int
    assert there(object()) == "object 0"
    assert there([object(), object()]) == ["object 0", "object 1"]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"list": 1},
        {"list": [], "set": []},
        {"type": "int"},
        {"reference": "a"},
        {"same": 0},
        {"shared": [0, {"tuple": []}]},
        {"shared": [0, 1]},
        {"Fraction": ["x"]},
        {"date": ["x"]},
    ],
)
def test_what_is_no_value_is_refused(content):
    with pytest.raises((ValueError, TypeError, AttributeError, KeyError)):
        decode(content, resolve, Sharing())


def test_one_mutable_object_arrives_as_one_object():
    row = [0]
    grid = {"rows": [row, row], "row": row}
    grid["self"] = grid
    arrived = there(grid)
    assert arrived["self"] is arrived
    assert arrived["rows"][0] is arrived["rows"][1] is arrived["row"]
    assert there([[0], [0]])[0] is not there([[0], [0]])[1]


def test_the_contents_of_an_object_are_encoded_again_after_a_call():
    row, sent = [0], Sharing()
    encode([row], dict, sent)
    row.append(1)
    assert contents(row, dict, sent) == {"list": [0, 1]}
    assert encode(row, dict, sent) == {"same": 1}


def test_what_changed_in_place_is_changed_here():
    counts = Counter("ab")
    update(counts, {"a": 5})
    assert counts == {"a": 5}
    target = {"list": [1], "dict": {1: 2}, "set": {1}, "other": (1,)}
    update(target["list"], [2, 3])
    update(target["dict"], {})
    update(target["set"], {4})
    update(target["other"], (2,))
    assert target == {"list": [2, 3], "dict": {}, "set": {4}, "other": (1,)}


@pytest.mark.parametrize("count", [1, 2, 3, 65536, 4294967295])
def test_a_user_id_lies_within_the_map_and_is_not_that_of_the_supervisor(count):
    users = {unused_user(f"         0       1000 {count}\n", process) for process in range(1, 1000)}
    assert all(0 <= user < count for user in users)
    assert count < 65536 or (0 not in users and len(users) == 999)
