"""ASGI middleware of `fireopd serve`: only the requests that fireopd sends reach vLLM, or the endpoints of a teacher.

A web page in a browser on the machine of the server can send requests to it, and can choose its own name for the
server (DNS rebinding). vLLM's endpoints for training accept any of them.
"""

import hmac
import ipaddress
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fireopd.engines.vllm.score_endpoint import CARD_PATH, SCORE_PATH, answer_card, answer_scores, until_disconnected
from fireopd.engines.vllm.teacher_card import TeacherCard
from fireopd.errors import UserError

__all__ = ["GUARD", "TOKEN_VARIABLE", "RequestGuard", "server_token"]

TOKEN_VARIABLE = "FIREOPD_SERVER_TOKEN"
"""Environment variable with the token of the servers, for `fireopd serve`, `VLLMServerEngine` and `VLLMTeacher`."""
ENDPOINTS = {
    "/health": "GET",
    "/weight_info": "GET",
    "/server_info": "GET",
    "/get_world_size": "GET",
    "/inference/v1/generate": "POST",
    "/collective_rpc": "POST",
    "/reset_prefix_cache": "POST",
    "/update_weight_version": "POST",
    "/init_weight_transfer_engine": "POST",
    "/start_weight_update": "POST",
    "/update_weights": "POST",
    "/finish_weight_update": "POST",
}
"""HTTP method of each endpoint that fireopd uses on the server of a student."""
TEACHER_ENDPOINTS = {"/health": "GET", CARD_PATH: "GET", SCORE_PATH: "POST"}
"""HTTP method of each endpoint of the server of a teacher, whose weights never change."""
CALLS = {"load_snapshot": {"folder"}}
"""Arguments of each worker method that /collective_rpc may call."""
MAX_CALL_BYTES = 2**16
MAX_SCORE_BYTES = 2**25
"""Limit on a request for scores: 16 bytes for each of 2 M tokens."""

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RequestGuard:
    """ASGI middleware that refuses requests of web pages, of strangers, and to other endpoints."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        """Store the application, and the token from the environment."""
        self.app = app
        self.token = server_token()
        self.names = own_names()
        self.card = TeacherCard.of_environment()
        self.endpoints = ENDPOINTS if self.card is None else TEACHER_ENDPOINTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or answer it with a 4xx status."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets"})
            return
        refusal = self._refusal(scope)
        if refusal is None and scope["path"] == "/collective_rpc":
            body = await _read(receive, MAX_CALL_BYTES)
            refusal = call_refusal(body)
            receive = _replay(body, receive)
        if refusal is not None:
            await _answer(send, *refusal)
        elif self.card is not None and scope["path"] in (CARD_PATH, SCORE_PATH):
            await self._answer_teacher(self.card, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer_teacher(self, card: TeacherCard, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["app"].state
        if scope["path"] == CARD_PATH:
            await _send(send, 200, "application/json", answer_card(state, card))
            return
        body = await _read(receive, MAX_SCORE_BYTES)
        if body is None:
            await _answer(send, 413, f"the request is longer than {MAX_SCORE_BYTES} bytes")
            return
        try:
            content = await until_disconnected(answer_scores(state, body), receive)
        except ValueError as error:  # of this package, or of vLLM for a sequence that is too long
            await _answer(send, 400, str(error))
        else:
            if content is not None:
                await _send(send, 200, "application/octet-stream", content)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason for a request that is refused because of its head."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if "origin" in headers or any(site != "none" for site in headers.get("sec-fetch-site", ())):
            return 403, "requests of web pages are refused"
        if self.token is not None and not _has_token(headers.get("authorization", []), self.token):
            return 401, f"the token is missing or wrong; set {TOKEN_VARIABLE} to the token of fireopd serve"
        if self.token is None and not self._is_addressed(headers.get("host", [])):
            return 403, "the Host header names another machine; use the address of the server, or a token"
        method = self.endpoints.get(scope["path"])
        if method is None:
            kind = "without" if self.card is None else "with"
            return 404, f"fireopd serve {kind} --teacher has no such endpoint"
        if scope["method"] != method:
            return 405, f"the endpoint expects {method}"
        types = [value.partition(";")[0].strip().lower() for value in headers.get("content-type", ())]
        if method == "POST" and types != ["application/json"]:
            return 415, "the content type must be application/json"
        return None

    def _is_addressed(self, hosts: list[str]) -> bool:
        """Return whether the Host header is an IP address or a name of this machine.

        An attacker can let a name of his own point to this machine, but not an IP address or a name of the machine.
        """
        if len(hosts) != 1:
            return False
        name = hosts[0].rpartition("]")[0].removeprefix("[") or hosts[0].partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self.names
        return True


def call_refusal(body: bytes | None) -> tuple[int, str] | None:
    """Return status and reason for a body of /collective_rpc that is refused: anything but the calls of fireopd."""
    try:
        call = json.loads(body or b"")
    except (ValueError, RecursionError):
        call = None
    if not isinstance(call, dict) or not call.keys() <= {"method", "kwargs"}:
        return 400, "expected a JSON object of method and kwargs"
    method, kwargs = call.get("method"), call.get("kwargs")
    allowed = CALLS.get(method) if isinstance(method, str) else None
    if allowed is None:
        return 403, f"only these methods may be called: {', '.join(sorted(CALLS))}"
    if not (isinstance(kwargs, dict) and kwargs.keys() == allowed and all(isinstance(x, str) for x in kwargs.values())):
        return 400, f"{method} expects texts for {', '.join(sorted(allowed))}"
    return None


def server_token() -> str | None:
    """Return the token of the servers from the environment, None if it is not set or empty.

    Raises:
        UserError: if it has other characters than printable ASCII without spaces; the error does not show it.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        problem = "it has characters that an HTTP header cannot hold"
        raise UserError(TOKEN_VARIABLE, "(hidden)", problem, "use printable ASCII characters without spaces")
    return token


def own_names() -> frozenset[str]:
    """Return the names of this machine, in lower case."""
    names = {"localhost", socket.gethostname(), socket.getfqdn()}
    return frozenset(part.lower() for name in names for part in (name, name.partition(".")[0]))


def _has_token(values: list[str], token: str) -> bool:
    """Return whether the Authorization header has the token; compares in constant time."""
    if len(values) != 1:
        return False
    scheme, _, given = values[0].partition(" ")
    return hmac.compare_digest(given.encode(), token.encode()) and scheme.lower() == "bearer"


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the body of a request; None if it is too long or the client has disconnected."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > limit:
            return None
    return body


def _replay(body: bytes | None, receive: Receive) -> Receive:
    """Return a `receive` that begins with a body that has been read."""
    messages = [{"type": "http.request", "body": body or b"", "more_body": False}]

    async def replay() -> dict[str, Any]:
        return messages.pop() if messages else await receive()

    return replay


async def _answer(send: Send, status: int, reason: str) -> None:
    await _send(send, status, "application/json", json.dumps({"error": {"message": reason}}).encode())


async def _send(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


GUARD = f"{RequestGuard.__module__}.{RequestGuard.__qualname__}"
"""Class path of the middleware, the value of vLLM's --middleware."""
