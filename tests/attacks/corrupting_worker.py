"""A worker that sends one damaged frame in place of the first answer with a magic number; else it is the real one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from layerwire_server.child import child
from layerwire_server.link import Frame, Kind, Link, encode
from layerwire_server.worker import __main__ as worker
from tests.served import MARK

MAGIC = 670.0

_send = Link.send


def send(self: Link, frame: Frame, body: Iterable[bytes | memoryview] | None = None) -> None:
    """link.Link.send."""
    pieces = [frame.payload] if body is None else list(body)
    mark = Path(os.environ[MARK])
    if frame.kind is Kind.ANSWERS and struct.pack("<f", MAGIC) in b"".join(pieces) and not mark.exists():
        mark.touch()
        damaged = bytearray(b"".join(encode(frame, pieces)))
        damaged[20] ^= 1
        assert self._transport is not None
        self._transport.write(bytes(damaged))
    else:
        _send(self, frame, pieces)


if __name__ == "__main__":
    Link.send = send  # type: ignore[method-assign]
    child.main(worker.run)
