"""Errors of settings, one or several."""

import pickle

import pytest

from fireopd.errors import CombinedUserError, UserError, collect_errors, named_in_traceback, raise_together

A, B = UserError("a", 1, "wrong", "fix it"), UserError("b", "x", "missing", "give one")


def test_several_errors_are_raised_as_one():
    raise_together([])
    with pytest.raises(UserError) as single:
        raise_together([A, UserError("a", 1, "wrong", "fix it")])
    assert single.value is A
    with pytest.raises(UserError) as both:
        raise_together([A, CombinedUserError(A, B)])
    assert both.value.each == (A, B)
    assert str(both.value) == "a: 1: wrong. Fix it.\nb: 'x': missing. Give one."
    assert both.value.key == "a"
    assert str(pickle.loads(pickle.dumps(both.value))) == str(both.value)


def test_errors_are_collected():
    found = []
    with collect_errors(found):
        raise CombinedUserError(A, B)
    with collect_errors(found):
        raise A
    assert found == [A, B, A]


def test_the_innermost_plugin_of_a_traceback_is_named():
    with (
        pytest.raises(RuntimeError) as failure,
        named_in_traceback("data.engine", 1.5, "samples 2 responses"),
        named_in_traceback("model.teachers.math", "text", "begins to score 1 trajectories"),
    ):
        raise RuntimeError
    assert failure.value.__notes__ == ["fireopd: model.teachers.math: str begins to score 1 trajectories."]
