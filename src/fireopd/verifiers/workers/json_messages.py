"""Messages between processes: JSON after its length, four bytes, over a socket."""

import json
import socket
import struct
import time
from typing import Any

LONGEST = 2**24
"""Bytes that a message may have; a longer one is an error."""


def send(channel: socket.socket, message: Any) -> None:
    """Send a message.

    Raises:
        OSError: if there is nobody to take it, or the channel has a timeout and it is over.
    """
    content = json.dumps(message).encode()
    channel.sendall(struct.pack("!I", len(content)) + content)


def receive(channel: socket.socket, deadline: float | None = None) -> Any:
    """Return the next message; nothing is read that comes after it.

    Raises:
        EOFError: if the other side has gone.
        TimeoutError: if the deadline, in seconds of `time.monotonic`, comes before it.
        ValueError: if it is too long, or no message.
    """
    (length,) = struct.unpack("!I", _read(channel, 4, deadline))
    if length > LONGEST:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(_read(channel, length, deadline))


def _read(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = []
    while size:
        if deadline is not None:
            channel.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = channel.recv(min(size, 65536))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
