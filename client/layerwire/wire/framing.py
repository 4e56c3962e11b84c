"""Spells the bytes of a call or an answer, alone or in a group of those that are alike, and takes answers apart.

It knows tensors' specs and the protobuf wire format; neither arrays nor gRPC.

A stream of small calls repeats the same message with another id and other data. Building it field by field through
protobuf costs more than the call itself, so `entry` spells out everything that stays and leaves gaps for the rest; and
calls of one entry that leave together are a group, which has what stays once.
What comes out is plain protobuf; tests parse it back with the generated classes.
Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire.dtypes import TensorSpec
from layerwire.wire.protobuf import DELIMITED, MalformedError, field, fields, prefix, tag

pack_id = struct.Struct("<Q").pack
_ID_BYTES = 8
_SINGLES, _GROUPS = tag(1, DELIMITED), tag(2, DELIMITED)  # of Calls and of StreamResponse
_TEMPLATE, _IDS, _DATA = (tag(number, DELIMITED) for number in (1, 2, 3))  # of a group
_MEMORY = tag(3, DELIMITED)  # of StreamResponse
_SHARED_RANGES = tag(4, DELIMITED)  # of an AnswerGroup
_MAX_OPENINGS = 256


def bare(spec: TensorSpec) -> tensor_pb2.Tensor:
    """The message of a tensor without its data."""
    return tensor_pb2.Tensor(dtype=tensor_pb2.DataType.Name(spec.dtype), shape=spec.shape)


# For each tensor with data, in a group's order: its place among the data of a call, and its bytes.
Columns: TypeAlias = tuple[tuple[int, int], ...]


class Entry:
    """A `Call` within `Calls`, or an `Answer` within `StreamResponse`, with gaps for its id and data.

    By itself its bytes are head + pack_id(id) + gaps[0] + data[0] + gaps[1] + ... + data[n - 1] + gaps[n]. Entries are
    equal if they are the same object.

    Attributes:
        nbytes: of all that, data included.
        template: the Call or Answer without id and data, as groups have it.
        columns: what data a group has.
    """

    __slots__ = ("_openings", "columns", "gaps", "head", "nbytes", "template")

    def __init__(self, head: bytes, gaps: tuple[bytes, ...], nbytes: int, template: bytes, columns: Columns) -> None:
        self.head = head
        self.gaps = gaps
        self.nbytes = nbytes
        self.template = template
        self.columns = columns
        self._openings: dict[int, tuple[bytes, tuple[bytes, ...], int]] = {}

    def parts(self, call_id: int, data: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
        """The pieces of its bytes, data uncopied."""
        parts: list[bytes | memoryview] = [self.head, pack_id(call_id), self.gaps[0]]
        for piece, gap in zip(data, self.gaps[1:], strict=True):
            parts.append(piece)
            if gap:
                parts.append(gap)
        return parts

    def group_parts(
        self, ids: Sequence[int], data: Sequence[Sequence[bytes | memoryview]]
    ) -> tuple[list[bytes | memoryview], int]:
        """The pieces of a group's bytes, and how many bytes they are; `data` is that of each call."""
        opening, tags, nbytes = self._group_head(len(ids))
        parts: list[bytes | memoryview] = [opening, struct.pack(f"<{len(ids)}Q", *ids)]
        for (place, _), before in zip(self.columns, tags, strict=True):
            parts.append(before)
            parts += [pieces[place] for pieces in data]
        return parts, nbytes

    def _group_head(self, count: int) -> tuple[bytes, tuple[bytes, ...], int]:
        """What stands in a group of so many before the ids and before each column, and bytes of the whole group."""
        opening = self._openings.get(count)
        if opening is None:
            first = field(1, self.template) + prefix(2, _ID_BYTES * count)
            tags = tuple(prefix(3, count * size) for _, size in self.columns)
            length = (
                len(first) + _ID_BYTES * count + sum(map(len, tags)) + count * sum(size for _, size in self.columns)
            )
            outer = prefix(2, length)
            if len(self._openings) >= _MAX_OPENINGS:
                self._openings.clear()
            opening = self._openings[count] = outer + first, tags, len(outer) + length
        return opening


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
            piece, nbytes = _without_data(slot, content), 0
        else:
            nbytes = content.nbytes
            piece = _up_to_data(slot, bare(content).SerializeToString() + prefix(3, nbytes), nbytes)
        literal += piece
        length += len(piece) + nbytes
        if not isinstance(content, str):
            gaps.append(literal)
            literal = b""
    return (*gaps, literal + tail), length


def without_data(head: bytes, tensors: Tensors, tail: bytes = b"") -> bytes:
    """The same message as a group's template has it: its tensors without data."""
    return head + b"".join(_without_data(*tensor) for tensor in tensors) + tail


def columns(tensors: Tensors) -> Columns:
    """What data a group has for these tensors: by number of field, and by key within a map."""
    own = [(slot, content) for slot, content in tensors if not isinstance(content, str)]
    order = sorted(range(len(own)), key=lambda place: _rank(own[place][0]))
    return tuple((place, own[place][1].nbytes) for place in order)


def _rank(slot: Slot) -> tuple[int, bytes]:
    return (slot, b"") if isinstance(slot, int) else (slot.number, slot.key.encode())


def _without_data(slot: Slot, content: TensorSpec | str) -> bytes:
    message = tensor_pb2.Tensor(name=content) if isinstance(content, str) else bare(content)
    return _up_to_data(slot, message.SerializeToString(), 0)


def _up_to_data(slot: Slot, body: bytes, nbytes: int) -> bytes:
    """A tensor's message up to its data, which are `nbytes` and come last."""
    if isinstance(slot, int):
        return prefix(slot, len(body) + nbytes) + body
    key = slot.key.encode()
    value = prefix(1, len(key)) + key + prefix(2, len(body) + nbytes) + body
    return prefix(slot.number, len(value) + nbytes) + value


def entry(number: int, head: bytes, tensors: Tensors, tail: bytes = b"") -> Entry:
    """The template of a call or an answer: `number` is the field of its request or response, the rest as `literals`."""
    gaps, inner = literals(head, tensors, tail)
    return entry_of(number, gaps, inner, without_data(head, tensors, tail), columns(tensors))


def entry_of(number: int, gaps: tuple[bytes, ...], inner: int, bare_inner: bytes, data: Columns) -> Entry:
    """The same of a request or response that is spelled out already: literals, length with all data, and without."""
    opening = prefix(number, inner)
    length = 9 + len(opening) + inner
    first = prefix(1, length) + b"\x09"
    return Entry(first, (opening + gaps[0], *gaps[1:]), len(first) + length - 1, field(number, bare_inner), data)


class Group(NamedTuple):
    """An AnswerGroup as it stands in a message: its data, which are not copied, or where they are in shared memory."""

    template: bytes
    ids: tuple[int, ...]
    data: list[memoryview]
    ranges: list[tuple[int, int]]


def shared_call(template: bytes, call_id: int, shared: layerwire_pb2.SharedData) -> bytes:
    """The StreamRequest of a call whose data lie in shared memory."""
    group = layerwire_pb2.CallGroup(template=template, ids=pack_id(call_id), shared=shared)
    message = layerwire_pb2.StreamRequest(calls=layerwire_pb2.Calls(groups=[group]))
    content: bytes = message.SerializeToString()
    return content


def answers(frame: bytes | memoryview) -> tuple[list[memoryview], list[Group], bytes | None]:
    """The serialized Answers of a StreamResponse, its groups, and the name of the memory that it shares, if it does.

    Data of a message that is one call's alone may be written to if the message may: they are the call's to keep.

    Raises:
        DecodeError: it is none.
    """
    view = memoryview(frame)
    singles: list[memoryview] = []
    groups: list[Group] = []
    memory: bytes | None = None
    try:
        for mark, start, end in fields(view, 0, len(view), len(view)):
            if mark == _SINGLES:
                singles.append(view[start:end])
            elif mark == _GROUPS:
                groups.append(_group(view, start, end))
            elif mark == _MEMORY:
                memory = layerwire_pb2.SharedMemory.FromString(bytes(view[start:end])).name
    except MalformedError:
        raise DecodeError("no StreamResponse") from None
    if not view.readonly and (singles or len(groups) != 1 or len(groups[0].ids) != 1):
        groups = [group._replace(data=[piece.toreadonly() for piece in group.data]) for group in groups]
    return singles, groups, memory


def _group(view: memoryview, start: int, end: int) -> Group:
    template, ids, data = b"", view[:0], []
    ranges: list[tuple[int, int]] = []
    for mark, at, after in fields(view, start, end, end - start):
        if mark == _TEMPLATE:
            template = bytes(view[at:after])
        elif mark == _IDS:
            ids = view[at:after]
        elif mark == _DATA:
            data.append(view[at:after])
        elif mark == _SHARED_RANGES:
            place = layerwire_pb2.SharedMemoryRange.FromString(bytes(view[at:after]))
            ranges.append((place.start, place.nbytes))
    if len(ids) % _ID_BYTES:
        raise MalformedError
    return Group(template, struct.unpack(f"<{len(ids) // _ID_BYTES}Q", ids), data, ranges)
