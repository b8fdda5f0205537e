"""Values between a program and its tests, and user ids of programs."""

import json

import pytest

from fireopd.verifiers.sandbox.namespaces import unused_user
from fireopd.verifiers.sandbox.value_codec import decode, encode, update


def there(value):
    """Return a value as it arrives; what is no plain data arrives as a text."""
    numbered = []

    def refer(item):
        numbered.append(item)
        return len(numbered) - 1

    return decode(json.loads(json.dumps(encode(value, refer))), lambda number: f"object {number}")


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**80), 1.5, float("inf"), "", "a\ud800", b"\x00\xff", bytearray(b"a"), 1 + 2j, [], (), set(),
     frozenset({1}), {}, {1: [2, (3, {"a": {4}})], (5, None): {6.0}}, [[[[]]]], {"list": [1]}, {"reference": 0}],
)  # fmt: skip
def test_plain_data_arrives_as_it_was(value):
    assert there(value) == value
    assert type(there(value)) is type(value)


def test_nothing_arrives_that_could_say_of_itself_that_it_is_equal():
    class Yes(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert type(there(Yes(3))) is int
    assert type(there([Yes(3)])[0]) is int
    assert there(object()) == "object 0"
    assert there([object(), object()]) == ["object 0", "object 1"]


@pytest.mark.parametrize("content", [[], {}, {"list": 1}, {"list": [], "set": []}, {"type": "int"}, {"reference": "a"}])
def test_what_is_no_value_is_refused(content):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        decode(content, int)


def test_what_changed_in_place_is_changed_here():
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
