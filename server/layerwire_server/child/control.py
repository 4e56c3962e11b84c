"""What the supervisor and its children tell each other: JSON lines over an inherited socket pair.

It knows neither gRPC nor torch, nor what the messages lead to.

To a child: `start` (first, once), `snapshot` (answer with metrics), `stop` (drain and exit), and to gateways
`worker_died`, with its cause.
To the supervisor: `ready`, `beat`, `metrics`, `misbehaves` (a gateway on a worker).
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
from collections.abc import Callable
from typing import Any, TypeAlias


class DeathCause(enum.StrEnum):
    """What a process died of."""

    FAULT = "fault"  # a signal that its own code brought about, such as SIGSEGV
    HANG = "hang"  # killed since it gave no sign of life, or by a gateway's word
    MEMORY = "memory"  # killed by the kernel, which had none left
    EXIT = "exit"  # it ended itself
    OUTSIDE = "outside"  # somebody's signal
    UNKNOWN = "unknown"  # nobody has said so far


Message: TypeAlias = dict[str, Any]
_LIMIT_BYTES = 16 * 1024**2  # a snapshot with all operators and codes is below 1 MiB


class Control:
    """One end of the conversation.

    Args:
        reader, writer: the stream over the socket, from `connect`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, end: socket.socket) -> Control:
        """Takes over this process's end of the socket pair."""
        end.setblocking(False)
        return cls(*await asyncio.open_connection(sock=end, limit=_LIMIT_BYTES))

    def send(self, kind: str, **values: Any) -> None:
        """Sends a message; to a peer that is gone, nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"kind": kind, **values}).encode() + b"\n")

    async def receive(self, handle: Callable[[Message], None]) -> None:
        """Hands each message to `handle` until the peer is gone or sends what is no message."""
        try:
            while line := await self._reader.readline():
                handle(json.loads(line))
        except (OSError, ValueError):  # the peer died in the middle of a line
            pass
        finally:
            self._writer.close()


def read_line(end: socket.socket) -> Message:
    """The first message, read before there is an event loop.

    Raises:
        EOFError: the peer is gone.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = end.recv(1)  # byte by byte, so that nothing of the next message is taken
        if not byte:
            raise EOFError("the supervisor is gone")
        line += byte
    message: Message = json.loads(line)
    return message
