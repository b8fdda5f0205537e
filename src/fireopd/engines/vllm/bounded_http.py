"""HTTP requests to one server, with bounds on the time and on the size of an answer."""

import json
import math
from contextlib import ExitStack
from typing import Any

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

__all__ = ["BoundedClient", "EndedError", "RefusedError", "ServerError"]

BUSY = frozenset({408, 418, 425, 429, 502, 503, 504})
"""Status codes of a server that may answer later."""
BUSY_DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new attempt at a busy server."""
INVALID = frozenset({400, 413, 422})
"""Status codes of an invalid request."""
MAX_BYTES = 4 * 2**20
"""Default limit on the size of an answer, bytes."""
KEEP_ALIVE = 2.0
"""Seconds for which an unused connection is kept; uvicorn closes it after 5."""
TOKEN_REMEDY = "set FIREOPD_SERVER_TOKEN to the token of the server"
URL_REMEDY = "give the address of a server that was started with fireopd serve"


class ServerError(Exception):
    """Failure of a server: it died, timed out or returned an invalid answer. Another server may succeed."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        """Store the problem, and the remedy if it differs from a restart of the server."""
        self.remedy = remedy
        super().__init__(problem)


class RefusedError(Exception):
    """Rejection of a request as invalid."""


class EndedError(Exception):
    """End of a request by `BoundedClient.cancel`."""


class BoundedClient:
    """Client of one server. Thread-safe. Its requests run in an event loop in a background thread.

    In the event loop, a limit holds for a request as a whole: connection, headers and body. The timeouts of a
    synchronous client restart with every byte.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        """Start the event loop without sending a request.

        Args:
            url: address, for example http://127.0.0.1:8001.
            token: sent as the bearer token of each request.
        """
        headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})
        # Servers run on this machine or in a private network: ignore the proxy settings of the environment.
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=5.0),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE),
            trust_env=False,
            verify=url.startswith("https:"),  # loading the certificates takes time
        )
        self._running: dict[anyio.CancelScope, float] = {}  # and the limit of each, seconds
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal(name=f"requests to {url}"))

    def close(self) -> None:
        """Cancel the running requests, close the connections and stop the event loop."""
        self.cancel()
        self._portal.call(self._client.aclose)
        self._stack.close()

    def cancel(self) -> None:
        """End the running requests at once, with an `EndedError`."""
        self._portal.call(self._stop_running)

    def request(self, method: str, path: str, *, seconds: float, max_bytes: int = MAX_BYTES, **request: Any) -> Any:
        """Send a request and return the JSON value of the answer, {} if it is empty; see `content`."""
        content = self.content(method, path, seconds=seconds, max_bytes=max_bytes, **request)
        try:
            return json.loads(content) if content else {}
        except (ValueError, RecursionError) as error:
            raise ServerError(f"did not return JSON ({type(error).__name__})") from error

    def content(self, method: str, path: str, *, seconds: float, max_bytes: int = MAX_BYTES, **request: Any) -> bytes:
        """Send a request and return the body of the answer.

        Args:
            method: HTTP method.
            path: path of the endpoint.
            seconds: limit on the time until the last byte of the answer, new attempts included. It begins again with
                each answer of the server to another request.
            max_bytes: limit on the size of the answer.
            **request: body and query of the request, as in httpx.

        Raises:
            ServerError: if the server fails, is busy for too long, or exceeds a limit.
            RefusedError: if the server rejects the request as invalid.
            EndedError: if the request was cancelled.
        """
        try:
            status, content = self._portal.call(self.attempts, seconds, max_bytes, method, path, request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(f"{type(error).__name__}: {_printable(str(error))}") from error
        if not 200 <= status < 300:
            raise _status_error(status, path, content)
        return content

    async def attempts(
        self, seconds: float, max_bytes: int, method: str, path: str, request: dict[str, Any]
    ) -> tuple[int, bytes]:
        """Return status and content of an answer, after repeats if the server is busy."""
        with anyio.move_on_after(seconds) as scope:
            self._running[scope] = seconds
            try:
                status, content = await self.attempt(max_bytes, method, path, request)
                for delay in BUSY_DELAYS:
                    if status not in BUSY:
                        break
                    await anyio.sleep(delay)
                    status, content = await self.attempt(max_bytes, method, path, request)
            finally:
                del self._running[scope]
        if scope.cancelled_caught:
            raise EndedError if scope.deadline == -math.inf else ServerError(f"timed out after {seconds:g} s")
        if 200 <= status < 300:
            for other, limit in self._running.items():
                other.deadline = anyio.current_time() + limit
        return status, content

    async def attempt(self, max_bytes: int, method: str, path: str, request: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and content of the answer to one request."""
        async with self._client.stream(method, path, **request) as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise httpx.DecodingError("the answer is compressed")
            content = bytearray()
            async for part in answer.aiter_raw():
                content += part
                if len(content) > max_bytes:
                    raise httpx.DecodingError(f"the answer is longer than {max_bytes} bytes")
            return answer.status_code, bytes(content)

    def _stop_running(self) -> None:
        for scope in self._running:
            scope.deadline = -math.inf


def _status_error(status: int, path: str, content: bytes) -> Exception:
    problem = f"{status} for {path}: {_message(content)}"
    if status in INVALID:
        return RefusedError(problem)
    if status in (401, 403):
        return ServerError(f"denies access ({problem})", TOKEN_REMEDY)
    if status in (404, 405):
        return ServerError(f"is no server of fireopd serve, or of another version ({problem})", URL_REMEDY)
    return ServerError(f"is busy ({problem})" if status in BUSY else problem)


def _message(content: bytes) -> str:
    """Return the message of an error: that of the JSON object, or the content as it is."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error", body.get("detail")) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return _printable(message if isinstance(message, str) else content[:2000].decode("utf-8", "replace"))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:500]).strip()
