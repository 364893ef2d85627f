"""Messages over a socket: four bytes of length, then JSON. Either side may be hostile to the other."""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_BYTES = 4 << 20
"""Of one message. Larger than any answer of a sane test, small enough to decode within a checker's memory."""
_PIECE = 1 << 16
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Closed(Exception):  # noqa: N818 - a state of the other side, which the receiver turns into a verdict
    """The other side is gone."""


class Refused(Exception):  # noqa: N818 - likewise
    """The other side sent what the protocol does not allow."""


class Channel:
    """End of a stream socket, on which messages of JSON go."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Any) -> None:
        """Send a message of JSON's own types.

        Raises:
            Closed: nobody listens.
            Refused: it is larger than the other side takes.
        """
        data = _encode(message).encode("ascii")
        if len(data) > MAX_BYTES:
            raise Refused(f"a message of {len(data)} bytes, more than {MAX_BYTES}")
        try:
            self._end.sendall(len(data).to_bytes(4, "big") + data)
        except OSError as error:
            raise Closed from error

    def receive(self) -> Any:
        """The next message.

        Raises:
            Closed: there is none and there will be none.
            Refused: it is too large, or no JSON.
        """
        size = int.from_bytes(self._exactly(4), "big")
        if size > MAX_BYTES:
            raise Refused(f"a message of {size} bytes, more than {MAX_BYTES}")
        try:
            return json.loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise Refused("a message that is no JSON") from error

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._end.recv(min(size - len(data), _PIECE))
            except OSError as error:
                raise Closed from error
            if not piece:
                raise Closed
            data += piece
        return bytes(data)
