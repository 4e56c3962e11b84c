"""Takes large tensors' data out of a message before it is parsed: the parser would copy them twice.

It knows where tensors are in each message; nothing of what they are for.

What is parsed has a mark in place of such data, which nobody outside of this process can know; what comes of parsing is
given the data back, as a view of the message where it lies.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterable
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from layerwire.v1 import program_pb2
from layerwire.wire import protobuf
from layerwire_server.worker.reading import parse_limits

Paths: TypeAlias = dict[int, "Paths | None"]  # as in parse_limits

LARGE_BYTES = 65536  # below, two copies cost less than the walk
_MOST_FIELDS = 1024  # of a message that is walked: of those with more, no field is worth it
_MARK = secrets.token_bytes(16)
_MARK_BYTES = len(_MARK) + 4


class LargeData:
    """What was taken out of one message."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []

    def put(self, data: memoryview) -> bytes:
        """The mark for data."""
        self._pieces.append(data)
        return _MARK + (len(self._pieces) - 1).to_bytes(4, "little")

    def restore(self, values: Iterable[Any]) -> list[Any]:
        """The values, with the data that they are marks of."""
        if not self._pieces:
            return list(values)
        return [self._data(value) if isinstance(value, bytes) else value for value in values]

    def _data(self, value: bytes) -> bytes | memoryview:
        if len(value) != _MARK_BYTES or not value.startswith(_MARK):
            return value
        return self._pieces[int.from_bytes(value[len(_MARK) :], "little")]


NONE = LargeData()


def without_large_data(payload: bytes | memoryview, descriptor: Descriptor) -> tuple[bytes | memoryview, LargeData]:
    """The message with marks for large data, and the data; as it is where it can't be followed."""
    if len(payload) < LARGE_BYTES:
        return payload, NONE
    large = LargeData()
    view = memoryview(payload).toreadonly()
    try:
        return b"".join(_pieces(view, 0, len(view), _paths(descriptor), large)), large
    except protobuf.MalformedError:  # the parser will say what is wrong
        return payload, NONE


def _pieces(view: memoryview, at: int, end: int, paths: Paths, large: LargeData) -> list[bytes | memoryview]:
    """The bytes of the message that lies there, without large data."""
    pieces: list[bytes | memoryview] = []
    for tag, start, after in protobuf.fields(view, at, end, _MOST_FIELDS):
        if after - start < LARGE_BYTES or tag not in paths:
            pieces.append(view[at:after])
        else:
            below = paths[tag]
            inner = [large.put(view[start:after])] if below is None else _pieces(view, start, after, below, large)
            pieces += (protobuf.prefix(tag >> 3, sum(map(len, inner))), *inner)
        at = after
    return pieces


@functools.cache
def _paths(descriptor: Descriptor) -> Paths:
    """The ways to data that stay as they are when they are parsed; not to those of a program that comes along."""
    paths = parse_limits.paths_to_data(descriptor)
    fields = {protobuf.tag(field.number): field for field in descriptor.fields}
    below: Paths = {}
    for tag, path in paths.items():
        field = fields[tag]
        if path is None and field.type == FieldDescriptor.TYPE_BYTES:
            below[tag] = None
        elif field.message_type is not None and field.message_type is not program_pb2.Program.DESCRIPTOR:
            below[tag] = _paths(field.message_type)
    return below
