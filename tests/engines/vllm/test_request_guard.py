"""Middleware of `fireopd serve`: the requests of fireopd pass, those of web pages and strangers do not."""

import asyncio
import json
import socket

import httpx
import pytest

from fireopd.engines.vllm import request_guard
from fireopd.engines.vllm.client import ServerClient
from fireopd.engines.vllm.request_guard import CALLS, ENDPOINTS, GUARD, TOKEN_VARIABLE, RequestGuard, server_token
from fireopd.engines.vllm.worker import SnapshotLoader
from fireopd.errors import UserError

LOAD = {"method": "load_snapshot", "kwargs": {"folder": "/weights"}}


class Application:
    """ASGI application that records the requests that reach it."""

    def __init__(self):
        self.requests = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.requests.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def application():
    return Application()


@pytest.fixture
def send(application, monkeypatch):
    """Return a function that sends a request through the middleware and returns the answer."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)

    def request(method, path, url="http://127.0.0.1:8001", **content):
        async def run():
            transport = httpx.ASGITransport(RequestGuard(application))
            async with httpx.AsyncClient(transport=transport, base_url=url) as client:
                return await client.request(method, path, **content)

        return asyncio.run(run())

    return request


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8001", "http://localhost:8001", "http://[::1]:8001", f"http://{socket.gethostname()}:1"]
)
def test_the_requests_of_fireopd_pass(send, application, url):
    for path, method in ENDPOINTS.items():
        body = {"json": LOAD if path == "/collective_rpc" else {"a": 1}} if method == "POST" else {}
        assert send(method, path, url, **body).status_code == 200, path
    assert [path for _, path, _ in application.requests] == list(ENDPOINTS)
    bodies = {path: body for _, path, body in application.requests}
    assert json.loads(bodies["/collective_rpc"]) == LOAD


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),
        ({"host": "evil.example:8001"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_requests_of_web_pages_are_refused(send, application, headers, status):
    content = {"content-type": "application/json"} | headers
    answer = send("POST", "/collective_rpc", content=json.dumps(LOAD), headers=content)
    assert answer.status_code == status
    assert not application.requests


def test_a_host_header_must_occur_once(send, application):
    for headers in ([], [("host", "127.0.0.1"), ("host", "evil.example")]):
        guard = RequestGuard(application)
        scope = {"headers": [(name.encode(), value.encode()) for name, value in headers]}
        assert guard._refusal(scope | {"path": "/health", "method": "GET"})[0] == 403


def status_of(application, *headers, path="/health", method="GET"):
    """Return the status with which a head is refused; None if it passes."""
    scope = {"headers": [(name.encode(), value.encode()) for name, value in headers], "path": path, "method": method}
    refusal = RequestGuard(application)._refusal(scope)
    return refusal and refusal[0]


def test_names_are_compared_in_lower_case_and_without_the_final_dot(application, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "Node.Example.org")
    monkeypatch.setattr(socket, "getfqdn", lambda: "Alias.Example.com")
    for host in ("LOCALHOST.:1", "node.example.org.", "NODE", "alias.example.com:80", "alias"):
        assert status_of(application, ("host", host)) is None, host
    assert status_of(application, ("host", "node.example.com")) == 403


def test_headers_are_read_whatever_their_case_and_parameters(application, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    host, post = ("host", "127.0.0.1"), {"method": "POST", "path": "/update_weights"}
    assert status_of(application, host, ("Origin", "http://a")) == 403
    assert status_of(application, host, ("sec-fetch-site", "none")) is None
    assert status_of(application, host, ("content-type", "Application/JSON; charset=utf-8"), **post) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    token = ("authorization", "Bearer s3cret")
    assert status_of(application, token) is None
    assert status_of(application, token, token) == 401
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert server_token() is None


def received(*messages):
    """Return a `receive` of messages."""
    kinds = [{"type": "http.request" if isinstance(m, tuple) else m} for m in messages]
    bodies = [{"body": m[0], "more_body": m[1]} if isinstance(m, tuple) else {} for m in messages]
    left = [kind | body for kind, body in zip(kinds, bodies, strict=True)]

    async def receive():
        return left.pop(0)

    return receive


@pytest.mark.parametrize(
    ("messages", "body"),
    [
        ([(b"ab", True), (b"c", True), (b"", False)], b"abc"),
        ([(b"abcd", False)], None),
        ([(b"ab", True), (b"cd", True)], None),
        ([(b"ab", True), "http.disconnect"], None),
    ],
)
def test_a_body_is_read_up_to_its_limit_or_not_at_all(messages, body):
    assert asyncio.run(request_guard._read(received(*messages), 3)) == body


def test_the_application_reads_the_body_again_and_then_what_follows():
    replay = request_guard._replay(b"ab", received("http.disconnect"))
    assert asyncio.run(replay()) == {"type": "http.request", "body": b"ab", "more_body": False}
    assert asyncio.run(replay()) == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/docs", 404), ("POST", "/v1/completions", 404), ("POST", "/sleep", 404), ("POST", "/pause", 404),
     ("GET", "/collective_rpc", 405), ("OPTIONS", "/collective_rpc", 405), ("POST", "/health", 405),
     ("POST", "/collective_rpc/", 404)],
)  # fmt: skip
def test_other_endpoints_are_refused(send, application, method, path, status):
    assert send(method, path, **({"json": LOAD} if method == "POST" else {})).status_code == status
    assert not application.requests


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 60_000,
        b" " * 100_000,
        *(
            json.dumps(call).encode()
            for call in (
                {"method": "__class__"},
                {"method": ["load_snapshot"]},
                {"kwargs": {"folder": "/w"}},
                LOAD | {"method": "reload_weights"},
                LOAD | {"args": ["a"]},
                LOAD | {"timeout": 1},
                LOAD | {"kwargs": {}},
                LOAD | {"kwargs": {"folder": 1}},
                LOAD | {"kwargs": {"folder": "/w", "other": "a"}},
                LOAD | {"kwargs": ["folder"]},
            )
        ),
    ],
)
def test_only_the_worker_methods_of_fireopd_may_be_called(send, application, body):
    answer = send("POST", "/collective_rpc", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 403)
    assert not application.requests


def test_the_allowed_calls_exist():
    assert all(callable(getattr(SnapshotLoader, method)) for method in CALLS)


def test_a_token_is_required_if_there_is_one(send, application, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    for value in (None, "s3cret", "Bearer", "Bearer s3cre", "Bearer s3cret1", "Basic s3cret", "Bearer \xff"):
        headers = {} if value is None else {"authorization": value.encode("latin-1")}
        answer = send("GET", "/health", headers=headers)
        assert answer.status_code == 401
        assert TOKEN_VARIABLE in answer.text
        assert "s3cret" not in answer.text
    assert not application.requests
    for url in ("http://127.0.0.1:8001", "http://alias-of-the-node:8001"):
        assert send("GET", "/health", url, headers={"authorization": "Bearer s3cret"}).status_code == 200
    page = {"authorization": "Bearer s3cret", "origin": "http://127.0.0.1"}
    assert send("GET", "/health", headers=page).status_code == 403


@pytest.mark.parametrize("token", ["a b", "a\n", "ä"])
def test_a_token_that_no_header_can_hold(application, monkeypatch, token):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(UserError, match=TOKEN_VARIABLE) as error:
        RequestGuard(application)
    assert token not in str(error.value)


def test_websockets_are_closed_and_lifespan_events_pass(application):
    sent = []

    async def send(message):
        sent.append(message)

    async def run():
        await RequestGuard(application)({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send)

    asyncio.run(run())
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_the_class_path_of_the_middleware_is_importable():
    assert GUARD == "fireopd.engines.vllm.request_guard.RequestGuard"


def test_every_request_of_the_client_is_allowed(send, application, monkeypatch):
    """The client talks to the middleware in process."""
    asked = []

    def request(self, method, path, **content):
        kept = {name: value for name, value in content.items() if name in ("json", "params")}
        asked.append(path)
        assert send(method, path, **kept).status_code == 200
        return {"weight_version": "1", "vllm_config": {}, "world_size": 1, "success": True}

    monkeypatch.setattr("fireopd.engines.vllm.bounded_http.BoundedClient.request", request)
    client = ServerClient("http://127.0.0.1:8001", 5.0)
    client.health_problem(), client.weight_version(), client.settings(), client.num_workers()
    client.load_snapshot("/weights")
    client.set_weight_version("1")
    for path in ("/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"):
        client.post(path)
    client._generate([1], {}, 5.0, 1)
    client.close()
    assert set(asked) == set(ENDPOINTS)
