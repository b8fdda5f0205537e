"""Validation of the answers of a server: whatever a field holds, the answer is right or a `ServerError`."""

import math
from contextlib import suppress

import pytest
from helpers.fuzzing import FUZZED, VALUES
from hypothesis import given
from hypothesis import strategies as st

from fireopd.engines.vllm.answers import Expected, read_count, read_logprobs, read_response
from fireopd.engines.vllm.bounded_http import ServerError
from fireopd.types import Response

EXPECTED = Expected(max_length=6, stops=frozenset({0, 1}), vocabulary=48, version="3")
TOKENS = [5, 7, 7, 1]


def answer(tokens=TOKENS, content=None, **changes):
    content = [{"token_id": token, "logprob": -0.5} for token in tokens] if content is None else content
    choice = {"token_ids": tokens, "finish_reason": "stop", "logprobs": {"content": content}}
    choice["weight_versions"] = [{"version": "3", "start": 0, "end": len(tokens)}]
    return {"choices": [choice | changes]}


def problem(given):
    with pytest.raises(ServerError) as error:
        read_response(given, EXPECTED)
    return str(error.value)


def logprobs(*changes):
    return [{"token_id": token, "logprob": -0.5} | dict(changes) for token in TOKENS]


def spans(*rows):
    return [dict(zip(("version", "start", "end"), row, strict=True)) for row in rows]


def test_a_valid_response():
    assert read_response(answer(), EXPECTED) == Response((5, 7, 7, 1), (-0.5,) * 4, finished=True)
    cut = answer([5] * 6, finish_reason="length")
    assert read_response(cut, EXPECTED) == Response((5,) * 6, (-0.5,) * 6, finished=False)
    rounded = answer(content=logprobs(("logprob", 1e-7)))
    assert read_response(rounded, EXPECTED).logprobs == (1e-7,) * 4
    assert read_response(answer(weight_versions=spans(("3", 0, 2), ("3", 2, 4))), EXPECTED).finished


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([5, 48, 1], "its token 48 is not in the vocabulary of 48"),
        ([5, 10**9, 1], "its token 1000000000 is not in the vocabulary"),
        ([5, 2**70, 1], "is not in the vocabulary"),
        ([5, -1, 1], "its token -1 is not in the vocabulary"),
        ([5, True, 1], "its token True is no token id"),
        ([5, 7.0, 1], "its token 7.0 is no token id"),
        (["5", 7, 1], "its token '5' is no token id"),
        ([5, 1, 7, 1], "it continues after the stop token 1"),
        ([0, 7, 1], "it continues after the stop token 0"),
        ([5, 7, 7], "marked as finished, but its last token is 7"),
        ([], "0 tokens instead of 1 to 6"),
        ([7] * 7, "7 tokens instead of 1 to 6"),
    ],
)
def test_wrong_tokens(tokens, message):
    assert message in problem(answer(tokens))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": None}, "its tokens are None"),
        ({"token_ids": "abc"}, "its tokens are 'abc'"),
        ({"finish_reason": "length"}, "marked as cut, but its last token is 1"),
        ({"finish_reason": "abort"}, "its finish reason is 'abort'"),
        ({"finish_reason": ["stop"]}, "its finish reason is ['stop']"),
        ({"weight_versions": None}, "its weight versions are None"),
        ({"weight_versions": 3}, "its weight versions are 3"),
        ({"weight_versions": []}, "its weight versions are []"),
        ({"weight_versions": spans((3, 0, 4))}, "sampled from weights 3 instead of '3'"),
        ({"weight_versions": spans(("3", 0, 2), ("2", 2, 4))}, "sampled from weights '2' instead of '3'"),
        ({"weight_versions": spans(("3", 0, 3))}, "do not cover its 4 tokens"),
        ({"weight_versions": spans(("3", 0, 2), ("3", 3, 4))}, "do not cover its 4 tokens"),
        ({"logprobs": None}, "its log-probabilities are None"),
        ({"logprobs": {"content": [1, 2, 3, 4]}}, "its log-probabilities are"),
        ({"logprobs": {"content": logprobs()[:3]}}, "3 log-probabilities for 4 tokens"),
        ({"logprobs": {"content": logprobs(("token_id", 7))}}, "the log-probability of token 7 in the place of 5"),
        ({"logprobs": {"content": [*logprobs()[:3], {"token_id": True, "logprob": -1.0}]}}, "of token True"),
    ],
)
def test_other_wrong_fields(changes, message):
    assert message in problem(answer(**changes))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 0.1, -9999.0, True, None, "-0.5", [], 10**400, -(10**400)]
)
def test_log_probabilities_that_are_none(value):
    assert "is missing, positive or not finite" in problem(answer(content=logprobs(("logprob", value))))
    with pytest.raises(ServerError, match="is missing, positive or not finite"):
        read_logprobs({"prompt_logprobs": [None, {"6": {"logprob": value}}]}, [5, 6])


@pytest.mark.parametrize("choices", [None, [], "ab", [1], answer()["choices"] * 2])
def test_other_numbers_of_choices(choices):
    assert "did not return a response" in problem({"choices": choices})
    assert "did not return a response" in problem(choices)


def test_a_response_cut_too_early():
    cut = answer([5, 7], finish_reason="length")
    assert "cut after 2 of 6 tokens; its --max-model-len may be too small" in problem(cut)


def test_log_probabilities_belong_to_the_tokens_of_the_prompt():
    rows = [None, {"6": {"logprob": -1.0}}, {"4": {"logprob": -3.0}, "9": {"logprob": -2}}]
    assert read_logprobs({"prompt_logprobs": rows}, [5, 6, 9]) == [-1.0, -2.0]
    with pytest.raises(ServerError, match="did not return the log-probability of token 8"):
        read_logprobs({"prompt_logprobs": rows}, [5, 6, 8])
    with pytest.raises(ServerError, match="did not return log-probabilities of 2 tokens"):
        read_logprobs({"prompt_logprobs": rows}, [5, 6])


def places(value, path=()):
    """Yield the path of each value in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def replaced(value, path, new):
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict):
        return value | {first: replaced(value[first], rest, new)}
    return [*value[:first], replaced(value[first], rest, new), *value[first + 1 :]]


@pytest.mark.parametrize("value", [True, 0, -1, "2", 2.0, None])
def test_a_count_is_an_integer_greater_than_0(value):
    assert read_count({"world_size": 2}, "world_size") == 2
    with pytest.raises(ServerError, match="as 'world_size'"):
        read_count({"world_size": value}, "world_size")


@FUZZED
@given(st.sampled_from(sorted(places(answer()), key=str)), VALUES)
def test_any_value_in_any_place_is_valid_or_a_server_error(path, value):
    try:
        response = read_response(replaced(answer(), path, value), EXPECTED)
    except ServerError:
        return
    assert all(type(token) is int and 0 <= token < 48 for token in response.tokens)
    assert response.finished == (response.tokens[-1] in (0, 1))
    assert all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in response.logprobs)


@FUZZED
@given(st.sampled_from([(), ("prompt_logprobs",), ("prompt_logprobs", 1), ("prompt_logprobs", 1, "6")]), VALUES)
def test_any_log_probabilities_are_valid_or_a_server_error(path, value):
    given = replaced({"prompt_logprobs": [None, {"6": {"logprob": -1.0}}]}, path, value)
    with suppress(ServerError):
        [logprob] = read_logprobs(given, [5, 6])
        assert math.isfinite(logprob)
        assert logprob <= 1e-6
