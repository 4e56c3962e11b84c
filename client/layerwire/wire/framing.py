"""Spells the bytes of a call or an answer: templates of stream messages, with gaps for id and data.

It knows tensors' specs and the protobuf wire format; neither arrays nor gRPC.

A stream of small calls repeats the same message with another id and other data. Building it field by field through
protobuf costs more than the call itself, so `entry` spells out everything that stays and leaves gaps for the rest.
What comes out is plain protobuf; tests parse it back with the generated classes.
Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from layerwire.v1 import tensor_pb2
from layerwire.wire.dtypes import TensorSpec
from layerwire.wire.protobuf import prefix

pack_id = struct.Struct("<Q").pack


def bare(spec: TensorSpec) -> tensor_pb2.Tensor:
    """The message of a tensor without its data."""
    return tensor_pb2.Tensor(dtype=tensor_pb2.DataType.Name(spec.dtype), shape=spec.shape)


class Entry(NamedTuple):
    """A `Call` within `Calls`, or an `Answer` within `StreamResponse`, with gaps for its id and data.

    Its bytes are head + pack_id(id) + gaps[0] + data[0] + gaps[1] + ... + data[n - 1] + gaps[n].
    """

    head: bytes
    gaps: tuple[bytes, ...]
    nbytes: int

    def parts(self, call_id: int, data: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
        """The pieces of its bytes, data uncopied."""
        parts: list[bytes | memoryview] = [self.head, pack_id(call_id), self.gaps[0]]
        for piece, gap in zip(data, self.gaps[1:], strict=True):
            parts.append(piece)
            if gap:
                parts.append(gap)
        return parts


class MapEntry(NamedTuple):
    """An entry of a map field of tensors: number of the field, and the key."""

    number: int
    key: str


# Where a tensor stands in a message: number of its field, or an entry of a map field.
Slot: TypeAlias = int | MapEntry
Tensors: TypeAlias = Sequence[tuple[Slot, TensorSpec | str]]


def literals(head: bytes, tensors: Tensors, tail: bytes = b"") -> tuple[tuple[bytes, ...], int]:
    """A message with gaps where its tensors' data go, and the length of all of it, data included.

    Its bytes are literal[0] + data[0] + literal[1] + ... + data[n - 1] + literal[n].

    Args:
        head: serialized fields that stay (options, operator).
        tensors: the tensors in the order of their data: where they stand, and spec or name of stored weights.
        tail: serialized fields that follow them.
    """
    gaps, literal, length = [], head, len(head) + len(tail)
    for slot, content in tensors:
        if isinstance(content, str):
            piece, nbytes = _up_to_data(slot, tensor_pb2.Tensor(name=content).SerializeToString(), 0), 0
        else:
            nbytes = content.nbytes
            piece = _up_to_data(slot, bare(content).SerializeToString() + prefix(3, nbytes), nbytes)
        literal += piece
        length += len(piece) + nbytes
        if not isinstance(content, str):
            gaps.append(literal)
            literal = b""
    return (*gaps, literal + tail), length


def _up_to_data(slot: Slot, body: bytes, nbytes: int) -> bytes:
    """A tensor's message up to its data, which are `nbytes` and come last."""
    if isinstance(slot, int):
        return prefix(slot, len(body) + nbytes) + body
    key = slot.key.encode()
    value = prefix(1, len(key)) + key + prefix(2, len(body) + nbytes) + body
    return prefix(slot.number, len(value) + nbytes) + value


def entry(number: int, head: bytes, tensors: Tensors, tail: bytes = b"") -> Entry:
    """The template of a call or an answer: `number` is the field of its request or response, the rest as `literals`."""
    return entry_of(number, *literals(head, tensors, tail))


def entry_of(number: int, gaps: tuple[bytes, ...], inner: int) -> Entry:
    """The same of a request or response that is spelled out already: its literals, and its length with all data."""
    tag = prefix(number, inner)
    length = 9 + len(tag) + inner
    first = prefix(1, length) + b"\x09"
    return Entry(first, (tag + gaps[0], *gaps[1:]), len(first) + length - 1)
