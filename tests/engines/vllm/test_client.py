"""Client of one server: validation of its responses."""

import pytest
from helpers.fake_server import FakeServer

from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError, response_problem
from fireopd.types import Response, Sampling

STOPS = frozenset({1})


def ask(fake, timeout=10.0, **settings):
    defaults = {"seed": 3, "max_length": 8, "stops": STOPS, "version": "default"}
    return ServerClient(fake.url, timeout).generate([5, 6], Sampling(0.7, 0.9, 40), **(defaults | settings))


@pytest.fixture
def serve():
    started = []

    def start(*arguments, **settings):
        started.append(FakeServer(*arguments, **settings))
        return started[-1]

    yield start
    for fake in started:
        fake.stop()


def test_a_response_has_log_probabilities(serve):
    fake = serve()
    assert ask(fake) == Response((5, 7, 7, 1), (-0.5,) * 4, finished=True)
    [(path, body)] = fake.requests
    assert path == "/inference/v1/generate"
    assert body["token_ids"] == [5, 6]
    expected = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 3, "max_tokens": 8, "stop_token_ids": [1]}
    assert expected.items() <= body["sampling_params"].items()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("die", "Error"),
        ("hang", "timed out"),
        ("500", "500 for /inference/v1/generate: no"),
        ("no json", "JSONDecodeError"),
        ("no choices", "did not return a response"),
        ("no logprobs", "did not return a response"),
        ("too few logprobs", "3 log-probabilities for 4 tokens"),
        ("nan", "positive or not finite"),
        ("no token", "0 tokens instead of 1 to 8"),
        ("too long", "99 tokens instead of 1 to 8"),
        ("words", "tokens that are not token ids"),
        ("unstopped", "marked as finished, but its last token is 7"),
    ],
)
def test_server_faults_raise_specific_errors(serve, fault, message):
    with pytest.raises(ServerError, match=message):
        ask(serve(fault), timeout=0.5 if fault == "hang" else 10.0)


def test_a_response_from_other_weights_is_an_error(serve):
    with pytest.raises(ServerError, match="sampled from weights default instead of 4"):
        ask(serve(), version="4")


def test_a_rejected_request_is_not_a_server_error(serve):
    with pytest.raises(RefusedError, match="400 for /inference/v1/generate: no"):
        ask(serve("400"))


def test_an_unreachable_server():
    fake = FakeServer()
    fake.stop()
    assert not ServerClient(fake.url, 1.0).is_healthy()
    with pytest.raises(ServerError, match="Connect"):
        ask(fake)


def test_log_probabilities_of_given_tokens(serve):
    assert ServerClient(serve().url, 5.0).logprobs([5, 6, 9]) == [-6.0, -9.0]


def test_a_cut_response_must_not_end_with_a_stop_token():
    assert response_problem(Response((4, 5), (-1.0, -1.0), finished=False), 2, STOPS) is None
    assert "marked as cut, but its last token is 1" in response_problem(
        Response((4, 1), (-1.0, -1.0), finished=False), 2, STOPS
    )


def test_a_response_cut_too_early_is_invalid():
    problem = response_problem(Response((4, 5), (-1.0, -1.0), finished=False), 9, STOPS)
    assert "cut after 2 of 9 tokens; its --max-model-len may be too small" in problem
