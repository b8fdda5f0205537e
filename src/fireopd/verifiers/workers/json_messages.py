"""Messages between processes: JSON with a length prefix of four bytes, over a socket."""

import json
import socket
import struct
import time
from typing import Any

__all__ = ["LONGEST", "receive", "send"]

LONGEST = 2**24
"""Maximum size of a message, bytes."""


def send(channel: socket.socket, message: Any) -> None:
    """Send a message.

    Raises:
        OSError: if the channel is closed on the other side, or its timeout expires.
    """
    content = json.dumps(message).encode()
    channel.sendall(struct.pack("!I", len(content)) + content)


def receive(channel: socket.socket, deadline: float | None = None) -> Any:
    """Return the next message without reading beyond it.

    Raises:
        EOFError: if the channel is closed on the other side.
        TimeoutError: if the deadline, in seconds of `time.monotonic`, passes first.
        ValueError: if the message is too long or not JSON.
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
