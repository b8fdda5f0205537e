"""Requests with bounds: servers that drip, never end, lie about their answer, or are busy."""

import json
import socket
import threading
from contextlib import suppress

import pytest

from fireopd.engines.vllm import bounded_http
from fireopd.engines.vllm.bounded_http import BoundedClient, RefusedError, ServerError

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
LIMIT = 0.3
"""Time limit of requests that must not end by themselves, seconds."""


class RawServer:
    """Server that sends given bytes for each request: a list of parts, or a function that sends until it is stopped."""

    def __init__(self, *answers):
        self.answers, self.heads, self.stopping = list(answers), [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while not self.stopping.is_set():
            with suppress(OSError):  # the client closes the connection at a limit
                connection, _ = self.listener.accept()
                with connection:
                    self.heads.append(connection.recv(2**16))
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                    else:
                        answer(connection, self.stopping)

    def stop(self):
        self.stopping.set()
        with suppress(OSError):
            socket.create_connection(self.listener.getsockname()).close()
        self.thread.join()
        self.listener.close()


def status(code, body=b"{}", headers=b""):
    length = f"content-length: {len(body)}\r\nconnection: close\r\n".encode()
    return f"HTTP/1.1 {code} x\r\n".encode() + length + headers + b"\r\n" + body


def repeat(start, part, pause):
    """Return an answer that repeats a part without end."""

    def send(connection, stopping):
        connection.sendall(start)
        while not stopping.wait(pause):
            connection.sendall(part)

    return send


@pytest.fixture
def client_of():
    started = []

    def start(*answers, token=None):
        server = RawServer(*answers)
        started.extend((client := BoundedClient(server.url, token), server))
        return client, server

    yield start
    for each in started:
        each.close() if isinstance(each, BoundedClient) else each.stop()


@pytest.mark.parametrize(
    "answer",
    [
        repeat(b"", b"", 0.02),
        repeat(HEAD, b"x-a: 1\r\n", 0.02),
        repeat(HEAD + b"content-length: 100000\r\n\r\n", b" ", 0.02),
        repeat(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.02),
    ],
    ids=["silence", "headers", "body", "chunks"],
)
def test_the_time_of_a_whole_answer_is_limited(client_of, answer):
    client, _ = client_of(answer)
    with pytest.raises(ServerError, match=f"timed out after {LIMIT} s"):
        client.request("GET", "/", seconds=LIMIT)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (repeat(HEAD + b"\r\n", b" " * 4096, 0), "the answer is longer than 10000 bytes"),
        (repeat(HEAD, b"x-a: 1\r\n" * 500, 0), "RemoteProtocolError"),
        (status(200, b"xxxx", b"content-encoding: gzip\r\n"), "the answer is compressed"),
        (status(200, b"[" * 9000), "did not return JSON (RecursionError)"),
        (status(200, b"1" * 5000), "did not return JSON (ValueError)"),
        (status(200, b"\xff"), "did not return JSON (UnicodeDecodeError)"),
        (b"no HTTP\r\n\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "RemoteProtocolError"),
        (status(302, headers=b"location: http://127.0.0.1:9/\r\n"), "302 for /"),
    ],
)
def test_other_answers_that_are_none(client_of, answer, message):
    client, _ = client_of(answer)
    with pytest.raises(ServerError) as error:
        client.request("GET", "/", seconds=20.0, max_bytes=10000)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("code", "kind", "message", "remedy"),
    [
        (400, RefusedError, "400 for /: the prompt is long", None),
        (422, RefusedError, "422 for /", None),
        (401, ServerError, "denies access (401", "FIREOPD_SERVER_TOKEN"),
        (403, ServerError, "denies access (403", "FIREOPD_SERVER_TOKEN"),
        (404, ServerError, "is no server of fireopd serve", "started with fireopd serve"),
        (500, ServerError, "500 for /", None),
        (501, ServerError, "501 for /", None),
    ],
)
def test_errors_are_told_apart_by_status(client_of, code, kind, message, remedy):
    client, _ = client_of(status(code, json.dumps({"error": {"message": "the prompt\x1b is long"}}).encode()))
    with pytest.raises(kind) as error:
        client.request("GET", "/", seconds=20.0)
    assert message in str(error.value).replace("prompt  is", "prompt is")
    assert remedy is None or remedy in error.value.remedy
    assert str(error.value).isprintable()


@pytest.mark.parametrize("code", [418, 429, 503])
def test_a_busy_server_is_tried_again(client_of, monkeypatch, code):
    monkeypatch.setattr(bounded_http, "BUSY_DELAYS", (0.0, 0.0))
    client, server = client_of(status(code), status(code), status(200, b'{"a": 1}'))
    assert client.request("GET", "/", seconds=20.0) == {"a": 1}
    assert len(server.heads) == 3
    server.answers = [status(code)]
    with pytest.raises(ServerError, match=f"is busy \\({code}"):
        client.request("GET", "/", seconds=20.0)
    assert len(server.heads) == 6


def test_a_token_is_sent_and_not_shown(client_of):
    client, server = client_of(status(200), token="secret")
    assert client.request("GET", "/", seconds=20.0) == {}
    assert b"authorization: Bearer secret\r\n" in server.heads[0].replace(b"Authorization", b"authorization")
    server.answers = [status(500)]
    with pytest.raises(ServerError) as error:
        client.request("GET", "/", seconds=20.0)
    assert "secret" not in f"{error.value!r} {client!r} {vars(client)!r}"


def test_the_time_begins_again_with_each_answer_of_the_server():
    scopes = []

    class Scope:
        deadline = 5.0

    client = BoundedClient("http://127.0.0.1:9")

    async def attempt(*_):
        scopes.append(Scope())
        client._running[scopes[-1]] = 7.0
        return 200, b""

    client.attempt = attempt
    try:
        client.request("GET", "/", seconds=20.0)
        assert scopes[0].deadline > 5.0
        client.cancel()
        assert scopes[0].deadline == -float("inf")
    finally:
        client.close()
