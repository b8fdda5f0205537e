"""Servers that answer independent requests. The requests of a server that fails go to the others."""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Condition
from typing import TypeVar

from fireopd.engines.vllm.client import EndedError, RefusedError, ServerClient, ServerError, checked_url
from fireopd.errors import UserError

__all__ = ["ServerPool", "check_addresses", "exclusion"]

LOGGER = logging.getLogger("lightning.pytorch")

Answer = TypeVar("Answer")


class ServerPool:
    """Clients of several servers, and the threads in which they wait. Thread-safe."""

    def __init__(self, clients: Sequence[ServerClient], concurrency: int, key: str, until: str) -> None:
        """Store the clients without sending a request.

        Args:
            clients: clients of the servers.
            concurrency: number of requests to each server at the same time.
            key: setting that holds the addresses, for error messages.
            until: end of an exclusion, for messages.
        """
        self.clients = list(clients)
        self.concurrency, self.key, self.until = concurrency, key, until
        self.excluded: dict[str, str] = {}  # error message by address
        self._running = dict.fromkeys(self.clients, 0)
        self._changed = Condition()
        self._threads = ThreadPoolExecutor(max(1, concurrency * len(self.clients)), "requests")

    @property
    def available(self) -> list[ServerClient]:
        """Servers that are not excluded."""
        return [server for server in self.clients if server.url not in self.excluded]

    def close(self) -> None:
        """Cancel all requests and close the connections; the servers keep running."""
        for server in self.clients:
            server.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(
        self, ask: Callable[[ServerClient], Answer], rejected: Callable[[ServerClient, RefusedError], UserError]
    ) -> "Future[Answer]":
        """Begin a request at the least busy server; if it fails, the request goes to another one.

        Args:
            ask: sends the request to a server.
            rejected: returns the error of a request that all servers reject as invalid.

        Returns:
            The answer, when it is there. It fails with `UserError` if no server is left, with the result of `rejected`,
            or with `EndedError`.
        """
        return self._threads.submit(self._answer, ask, rejected)

    def gather(self, futures: Sequence["Future[Answer]"]) -> list[Answer]:
        """Return the answers to requests. After an error or an interrupt, end the requests that still run."""
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
            while wait(futures, timeout=0.05).not_done:
                for server in self.clients:
                    server.cancel()
        failed = [future for future in futures if not future.cancelled() and future.exception() is not None]
        for future in sorted(failed, key=lambda future: isinstance(future.exception(), EndedError)):
            future.result()  # raises: the cause, not the requests that ended because of it
        return [future.result() for future in futures]

    def exclude(self, server: ServerClient, error: Exception) -> None:
        """Send no more requests to a server, and warn if it was not excluded before."""
        with self._changed:
            known = server.url in self.excluded
            self.excluded.setdefault(server.url, str(error))
            self._changed.notify_all()
        if not known:
            LOGGER.warning(exclusion(server.url, str(error), self.until))  # on every rank: each has its connections

    def include(self, server: ServerClient) -> None:
        """Send requests to an excluded server again."""
        with self._changed:
            self.excluded.pop(server.url, None)
            self._changed.notify_all()

    def no_server_error(self) -> UserError:
        """Return the error that lists the failures of all servers."""
        problem = "no server is left (" + "; ".join(f"{url}: {error}" for url, error in self.excluded.items()) + ")"
        remedy = "restart them with fireopd serve, then resume from the last checkpoint"
        return UserError(self.key, ", ".join(server.url for server in self.clients), problem, remedy)

    def _answer(
        self, ask: Callable[[ServerClient], Answer], rejected: Callable[[ServerClient, RefusedError], UserError]
    ) -> Answer:
        """Return the answer of the first server that gives one; a request is invalid if all servers reject it."""
        refusals: dict[ServerClient, RefusedError] = {}
        while (server := self._acquire(refusals.keys())) is not None:
            try:
                answer = ask(server)
            except RefusedError as error:
                refusals[server] = error
            except EndedError:
                raise
            except ServerError as error:
                self.exclude(server, error)
            else:
                for refusing, refusal in refusals.items():
                    problem = f"rejects a request that {server.url} accepts ({refusal})"
                    self.exclude(refusing, ServerError(problem))
                return answer
            finally:
                self._release(server)
        for refusing, refusal in refusals.items():
            raise rejected(refusing, refusal) from refusal
        raise self.no_server_error()

    def _acquire(self, tried: Collection[ServerClient]) -> ServerClient | None:
        """Return the least busy server that was not tried, after waiting for one; None if none is left."""
        with self._changed:
            while True:
                left = [server for server in self.available if server not in tried]
                if not left:
                    return None
                server = min(left, key=self._running.__getitem__)
                if self._running[server] < self.concurrency:
                    self._running[server] += 1
                    return server
                self._changed.wait()

    def _release(self, server: ServerClient) -> None:
        with self._changed:
            self._running[server] -= 1
            self._changed.notify_all()


def exclusion(url: str, problem: str, until: str) -> str:
    """Return the warning that a server is excluded."""
    return f"Warning: {url} is excluded until {until}: {problem}"


def check_addresses(servers: Sequence[str], concurrency: int, timeout: float, name: str = "servers") -> None:
    """Check the settings of a class with servers; `name` is the setting that holds the addresses.

    Raises:
        ValueError: if there is no server, an address is invalid or occurs twice, or a number is out of range.
    """
    if not servers:
        raise ValueError("servers must be at least one address, got []")
    if len({checked_url(url, name).rstrip("/") for url in servers}) < len(servers):
        raise ValueError(f"{name} must be different addresses, got {list(servers)}")
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    if not timeout > 0:
        raise ValueError(f"timeout must be greater than 0, got {timeout}")
