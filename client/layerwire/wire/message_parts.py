"""Large messages of a stream travel in parts: cut here, and put together again where the other end wants them.

It knows the contract's MessagePart; neither streams nor what the messages mean.

gRPC holds a message two or three times over, and touches it only when all of it is there. Of one that comes in parts a
few hundred kilobytes are held, which stay in the processor's cache, and both ends work on it at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

from layerwire.v1 import layerwire_pb2
from layerwire.wire.protobuf import FIXED64, MalformedError, fields, prefix, tag

LARGE_BYTES = 1048576  # larger messages go in parts
PART_BYTES = 524288
# How much gRPC reads ahead of who takes its messages, at both ends. Its own estimate grows to a whole message where
# the reader is short of processor time, and keeps that much memory; this much hides 30 ms of a network's 1 Gbit/s.
CHANNEL_OPTIONS = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4194304))
KEY = "layerwire-message-parts"  # in a stream's initial metadata: this server takes messages in parts
_NUMBER = layerwire_pb2.StreamRequest.PART_FIELD_NUMBER  # the same in a StreamResponse
TAG = tag(_NUMBER)  # what a StreamRequest or StreamResponse that is a part begins with
FIRST_BYTE = bytes((TAG,))
EMPTY = prefix(_NUMBER, 0)  # lets the server know that parts are understood here
_SIZE = struct.Struct("<Q")
_MESSAGE_BYTES = tag(layerwire_pb2.MessagePart.MESSAGE_BYTES_FIELD_NUMBER, FIXED64)
_DATA_NUMBER = layerwire_pb2.MessagePart.DATA_FIELD_NUMBER
_DATA = tag(_DATA_NUMBER)
_MOST_FIELDS = 4


def parts(pieces: Iterable[bytes | memoryview], nbytes: int) -> Iterator[bytes]:
    """The messages that a message of so many bytes goes in; its own bytes are given in pieces."""
    head = bytes((_MESSAGE_BYTES,)) + _SIZE.pack(nbytes)
    pending: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        view, start = memoryview(piece), 0
        while start < len(view):
            stop = min(len(view), start + PART_BYTES - size)
            pending.append(view[start:stop])
            size += stop - start
            start = stop
            if size == PART_BYTES:
                yield _part(head, pending, size)
                head, pending, size = b"", [], 0
    if pending or head:
        yield _part(head, pending, size)


def _part(head: bytes, pieces: list[bytes | memoryview], nbytes: int) -> bytes:
    opening = head + prefix(_DATA_NUMBER, nbytes)
    return b"".join((prefix(_NUMBER, len(opening) + nbytes), opening, *pieces))


class Assembly:
    """A message whose parts come one after another.

    Attributes:
        is_open: whether more of a message is to come.

    Args:
        room: called with the bytes of a message: writable memory for it; raises what says that it is too large.
    """

    def __init__(self, room: Callable[[int], memoryview]) -> None:
        self._make_room = room
        self._room: memoryview | None = None
        self._nbytes = 0

    @property
    def is_open(self) -> bool:
        """See the class."""
        return self._room is not None

    def add(self, part: bytes) -> memoryview | None:
        """The whole message if this was its last part, in the room that was made for it.

        Args:
            part: a message that begins with TAG.

        Raises:
            MalformedError: it is no part, or not the next one.
        """
        size, data = _content(memoryview(part))
        if size is not None:
            if self._room is not None:
                raise MalformedError
            self._room, self._nbytes = self._make_room(size), 0
        room = self._room
        if room is None:
            if data:
                raise MalformedError
            return None
        end = self._nbytes + len(data)
        if end > len(room):
            raise MalformedError
        room[self._nbytes : end] = data
        self._nbytes = end
        if end < len(room):
            return None
        self._room = None
        return room


def _content(part: memoryview) -> tuple[int | None, memoryview]:
    """Bytes of the whole message, in its first part, and the part's own data."""
    size, data = None, part[:0]
    ((mark, start, end),) = fields(part, 0, len(part), 1)  # another field behind it is too many
    if mark != TAG:
        raise MalformedError
    for inner, at, after in fields(part, start, end, _MOST_FIELDS):
        if inner == _MESSAGE_BYTES:
            (size,) = _SIZE.unpack_from(part, at)
        elif inner == _DATA:
            data = part[at:after]
    return size, data
