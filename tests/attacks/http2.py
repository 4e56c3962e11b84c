"""HTTP/2 as no well-behaved library speaks it: connections that send what a test tells them to, and keep count.

It knows frames and sockets; nothing of Layerwire but its service's name.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter

from tests.served import PATIENCE_SECONDS

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
ACK, END_STREAM, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_READ_BYTES = 1 << 20
_HEADER_BYTES = 9


def path_of(method: str) -> str:
    """Where an RPC of the service is."""
    return f"/layerwire.v1.LayerwireService/{method}"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(method: str, timeout: str = "") -> bytes:
    """The headers of an RPC as literals without index; every stream may use the same bytes (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path_of(method), ":authority": "localhost",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    if timeout:
        fields["grpc-timeout"] = timeout
    return b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in fields.items())


def _literal(text: str) -> bytes:
    assert len(text) < 127  # a length of one byte
    return bytes([len(text)]) + text.encode()


def message(body: bytes) -> bytes:
    """A gRPC message as it lies in DATA frames."""
    return struct.pack(">BI", 0, len(body)) + body


class Flooder:
    """A connection that sends raw bytes and parses no more than the headers of what comes back.

    Attributes:
        received: how many frames of each type came.
        last_words: what the GOAWAY said, if one came.
        closed: whether the server has closed it.
    """

    def __init__(self, address: str, initial_window_bytes: int = 65535) -> None:
        host, port = address.rsplit(":", 1)
        self.received: Counter[int] = Counter()
        self.last_words = b""
        self.closed = False
        self._rest = b""
        self._socket = socket.create_connection((host, int(port)), PATIENCE_SECONDS)
        self._socket.setblocking(False)
        self.pour(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, initial_window_bytes)))
        # Until it has the acknowledgement of its settings, the server counts all streams that ever were as open.
        assert self.listen(kind=SETTINGS), "the server greets nobody"
        self.pour(frame(SETTINGS, ACK, 0))

    def pour(self, data: bytes, seconds: float = PATIENCE_SECONDS, *, read: bool = True) -> int:
        """Sends as much as the server takes within the time, reading what comes; the bytes that it took."""
        view, until = memoryview(data), time.monotonic() + seconds
        while view and not self.closed and time.monotonic() < until:
            readable, writable, _ = select.select([self._socket] if read else [], [self._socket], [], 0.1)
            if readable:
                self._read()
            if writable and not self.closed:
                try:
                    view = view[self._socket.send(view[: 1 << 16]) :]
                except BlockingIOError:
                    pass
                except ConnectionError:
                    self.closed = True
        return len(data) - len(view)

    def listen(self, *, kind: int, count: int = 1) -> bool:
        """Reads until so many frames of this kind have come in all; whether they came."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.received[kind] < count and not self.closed:
            if not select.select([self._socket], [], [], max(until - time.monotonic(), 0))[0]:
                break
            self._read()
        return self.received[kind] >= count

    def close(self) -> None:
        """Ends it without a word."""
        self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        self.closed = self.closed or not data
        self._rest += data
        while len(self._rest) >= _HEADER_BYTES:
            end = _HEADER_BYTES + int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < end:
                return
            kind = self._rest[3]
            self.received[kind] += 1
            if kind == GOAWAY:
                self.last_words = self._rest[_HEADER_BYTES + 8 : end]
            self._rest = self._rest[end:]
