"""Client of one server: requests, and addresses."""

import pytest
from helpers.fake_server import FakeServer

from fireopd.engines.vllm.answers import Expected
from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError, checked_url
from fireopd.types import Response, Sampling

EXPECTED = Expected(max_length=8, stops=frozenset({1}), vocabulary=48, version="default")


@pytest.fixture
def client_of():
    """Return a function that starts a fake server with a fault and returns it with a client."""
    started = []

    def start(fault=None, timeout=10.0):
        fake = FakeServer(fault)
        started.extend((fake, client := ServerClient(fake.url, timeout)))
        return fake, client

    yield start
    for each in started:
        each.stop() if isinstance(each, FakeServer) else each.close()


def ask(client, temperature=0.7):
    return client.generate([5, 6], Sampling(temperature, 0.9, 40), seed=3, expected=EXPECTED)


def test_a_response_has_log_probabilities(client_of):
    fake, client = client_of()
    assert ask(client) == Response((5, 7, 7, 1), (-0.5,) * 4, finished=True)
    [(path, body)] = fake.requests
    assert path == "/inference/v1/generate"
    assert body["token_ids"] == [5, 6]
    expected = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 3, "max_tokens": 8, "stop_token_ids": [1]}
    assert expected.items() <= body["sampling_params"].items()


def test_greedy_tokens_have_the_probability_1(client_of):
    assert ask(client_of()[1], temperature=0.0).logprobs == (0.0,) * 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("die", "Error"),
        ("no json", "did not return JSON"),
        ("500", "500 for /inference/v1/generate: no"),
        ("nan", "nan"),
    ],
)
def test_server_faults_raise_specific_errors(client_of, fault, message):
    with pytest.raises(ServerError, match=message):
        ask(client_of(fault)[1])


def test_a_rejected_request_is_not_a_server_error(client_of):
    with pytest.raises(RefusedError, match="400 for /inference/v1/generate: no"):
        ask(client_of("400")[1])


def test_an_unreachable_server(client_of):
    fake, client = client_of()
    fake.stop()
    assert "failed its health check: ConnectError" in client.health_problem()
    with pytest.raises(ServerError, match="Connect"):
        ask(client)


def test_log_probabilities_of_given_tokens(client_of):
    assert client_of()[1].logprobs([5, 6, 9]) == [-6.0, -9.0]


@pytest.mark.parametrize("answer", [{}, {"success": 1}, {"success": False}, [], {"success": "true"}])
@pytest.mark.parametrize("path", ["/reset_prefix_cache", "/update_weight_version"])
def test_a_new_weight_version_must_be_confirmed(client_of, path, answer):
    fake, client = client_of()
    fake.answers[path] = answer
    with pytest.raises(ServerError, match="could not"):
        client.set_weight_version("3")


@pytest.mark.parametrize(
    ("path", "answer", "call"),
    [
        ("/weight_info", {"weight_version": None}, ServerClient.weight_version),
        ("/get_world_size", {"world_size": True}, ServerClient.num_workers),
        ("/get_world_size", {"world_size": 0}, ServerClient.num_workers),
        ("/server_info", {"vllm_config": "x"}, ServerClient.settings),
        ("/server_info", [], ServerClient.settings),
    ],
)
def test_other_answers_have_the_expected_type(client_of, path, answer, call):
    fake, client = client_of()
    fake.answers[path] = answer
    with pytest.raises(ServerError, match="returned"):
        call(client)


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://h:ab", "http://h:99999", "h:80", "http://", "ftp://h", "http://a b", "http://h?x=1", ""],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="servers must be addresses such as"):
        checked_url(url)


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(ValueError, match="must not contain passwords") as error:
        checked_url("http://me:secret@host:8001")
    assert "secret" not in str(error.value)
    assert checked_url("http://[::1]:8001/prefix") == "http://[::1]:8001/prefix"
