"""The calls of a message as far as a gateway tells them apart: where each lies, its id, how long its answer is of use.

It knows the wire format of StreamRequest down to a call's options; nothing of operators and tensors. Lengths are
followed, nothing is parsed. A call's ordinal is its place in the message: those by themselves first, then those of
each group in the order of its ids.

Nothing here runs while all is well. What can't be followed, or has more fields than any message of ours, raises
MalformedError: a worker will say what is wrong with it.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from layerwire.v1 import layerwire_pb2
from layerwire.wire.protobuf import DELIMITED, FIXED64, MalformedError, fields, tag
from layerwire_server.link import MAX_CALLS, Family

_ID_BYTES = 8
_MOST_FIELDS = 16  # of a call or options: none of ours has as many
_MOST_REQUEST_FIELDS = 1200  # of a request: Differentiate may want 1024 gradients by 64 others
_MOST_GROUP_FIELDS = 16 * MAX_CALLS  # of all groups of a message
# Tags of fields.
_CALLS = tag(layerwire_pb2.StreamRequest.CALLS_FIELD_NUMBER)
_CANCEL = tag(layerwire_pb2.StreamRequest.CANCEL_FIELD_NUMBER)
_CALL = tag(layerwire_pb2.Calls.CALLS_FIELD_NUMBER)
_GROUP = tag(layerwire_pb2.Calls.GROUPS_FIELD_NUMBER)
_TEMPLATE = tag(layerwire_pb2.CallGroup.TEMPLATE_FIELD_NUMBER)
_GROUP_IDS = tag(layerwire_pb2.CallGroup.IDS_FIELD_NUMBER)
_DATA = tag(layerwire_pb2.CallGroup.DATA_FIELD_NUMBER)
_SHARED = tag(layerwire_pb2.CallGroup.SHARED_FIELD_NUMBER)
_ID = tag(layerwire_pb2.Call.ID_FIELD_NUMBER, FIXED64)
_IDS = {tag(layerwire_pb2.Cancellation.IDS_FIELD_NUMBER, wire_type) for wire_type in (DELIMITED, FIXED64)}
_TIMEOUT = tag(layerwire_pb2.CallOptions.TIMEOUT_SECONDS_FIELD_NUMBER, FIXED64)


def _options(message: Any) -> dict[int, int]:
    """Tag of each request's field in a message -> tag of the options in that request, -1 where it has none."""
    requests = [field for field in message.oneofs_by_name["request"].fields if field.message_type is not None]
    options = [field.message_type.fields_by_name.get("options") for field in requests]
    return {
        tag(field.number): -1 if option is None else tag(option.number)
        for field, option in zip(requests, options, strict=True)
    }


_OPTIONS = _options(layerwire_pb2.Call.DESCRIPTOR)
# A Differentiate brings another request, whose options are its own.
_DIFFERENTIATE = layerwire_pb2.Call.DIFFERENTIATE_FIELD_NUMBER
_INNER_OPTIONS = _options(layerwire_pb2.DifferentiateRequest.DESCRIPTOR)
# Which field of Call a unary request would be.
UNARY_NUMBERS: dict[Family, int] = {
    family: layerwire_pb2.Call.DESCRIPTOR.fields_by_name[family.name.lower()].number
    for family in Family
    if family.name.lower() in layerwire_pb2.Call.DESCRIPTOR.fields_by_name
}
# A request of the Open Inference Protocol has no place in Call, so no number either. Names, id and parameters come
# first in it as in its answer, under the same numbers.
INFER = 0
UNARY_NUMBERS[Family.INFER] = INFER
_INFER_NAMES = frozenset(map(tag, (1, 2, 3)))  # model_name, model_version, id
_INFER_VARYING = frozenset(map(tag, (3, 4)))  # id, parameters

Span = tuple[int, int]


class Envelope(NamedTuple):
    """What stands around a request: the call's id, and which field of Call the request is; `request` is where it is."""

    call_id: int
    number: int
    request: Span


class Group(NamedTuple):
    """Where the parts of a CallGroup lie: its template, its ids of 8 bytes each, the data of each of its tensors.

    Attributes:
        shared: what says where in a client's memory the data are; None if they are here.
    """

    template: Span
    ids: Span
    data: tuple[Span, ...]
    shared: Span | None = None

    @property
    def call_count(self) -> int:
        """How many calls it has."""
        return (self.ids[1] - self.ids[0]) // _ID_BYTES

    def row(self, index: int) -> list[Span]:
        """Where the data of one of its calls lie, by its place among the ids.

        Raises:
            MalformedError: a tensor's data can't be divided among the calls, or lie elsewhere.
        """
        if self.shared is not None:
            raise MalformedError
        return rows(self.data, self.call_count, index)


def rows(data: Iterable[Span], count: int, index: int) -> list[Span]:
    """One call's part of the data of so many calls.

    Raises:
        MalformedError: a tensor's data can't be divided among the calls.
    """
    spans = []
    for start, end in data:
        size, rest = divmod(end - start, count)
        if rest:
            raise MalformedError
        spans.append((start + index * size, start + (index + 1) * size))
    return spans


class Contents(NamedTuple):
    """Where the calls of a StreamRequest lie: those by themselves, and those in groups."""

    calls: list[Span]
    groups: list[Group]

    @property
    def call_count(self) -> int:
        """How many calls there are."""
        return len(self.calls) + sum(group.call_count for group in self.groups)

    def groups_from(self) -> Iterator[tuple[int, Group]]:
        """The groups, each with the ordinal of its first call."""
        ordinal = len(self.calls)
        for group in self.groups:
            yield ordinal, group
            ordinal += group.call_count


def contents(payload: bytes | memoryview) -> Contents:
    """Where the calls of a StreamRequest lie, in order.

    Raises:
        MalformedError: it is none, or holds something else too, or too many calls.
    """
    found = Contents([], [])
    room = _MOST_GROUP_FIELDS
    for mark, start, end in fields(payload, 0, len(payload), _MOST_FIELDS):
        if mark != _CALLS:
            raise MalformedError
        for inner_mark, *span in fields(payload, start, end, MAX_CALLS):
            if inner_mark == _CALL:
                found.calls.append((span[0], span[1]))
            elif inner_mark == _GROUP:
                group = _group(payload, (span[0], span[1]), min(room, _MOST_REQUEST_FIELDS))
                room -= 2 + len(group.data)
                found.groups.append(group)
            else:
                raise MalformedError
    if found.call_count > MAX_CALLS:
        raise MalformedError
    return found


def _group(payload: bytes | memoryview, span: Span, most_fields: int) -> Group:
    template = ids = (span[0], span[0])
    data: list[Span] = []
    shared: Span | None = None
    for mark, start, end in fields(payload, *span, most_fields):
        if mark == _TEMPLATE:
            template = start, end
        elif mark == _GROUP_IDS:
            ids = start, end
        elif mark == _DATA:
            data.append((start, end))
        elif mark == _SHARED:
            shared = start, end
    return Group(template, ids, tuple(data), shared)


def group_ids(payload: bytes | memoryview, group: Group) -> tuple[int, ...]:
    """The ids of a group's calls, in their order."""
    return struct.unpack_from(f"<{group.call_count}Q", payload, group.ids[0])


def envelope(payload: bytes | memoryview, call: Span) -> Envelope:
    """What stands around a call's request.

    Raises:
        MalformedError: there are several requests, or none.
    """
    call_id, requests = 0, []
    for mark, start, end in fields(payload, *call, _MOST_FIELDS):
        if mark == _ID:
            call_id = int.from_bytes(payload[start:end], "little")
        elif mark in _OPTIONS:
            requests.append((mark >> 3, (start, end)))
    if len(requests) != 1:
        raise MalformedError
    return Envelope(call_id, *requests[0])


def options(payload: bytes | memoryview, number: int, request: Span) -> list[tuple[Span, Span]]:
    """Where the options of a request lie: the span of the whole field, and of what is in it.

    Raises:
        MalformedError: the request can't be followed.
    """
    if number == _DIFFERENTIATE:
        inner = [
            (_INNER_OPTIONS[mark], (start, end))
            for mark, start, end in fields(payload, *request, _MOST_REQUEST_FIELDS)
            if mark in _INNER_OPTIONS
        ]
        return [place for mark, span in inner for place in _places(payload, frozenset((mark,)), span)]
    if number == INFER:
        return _places(payload, _INFER_VARYING, request)
    return _places(payload, frozenset((_OPTIONS.get(tag(number), -1),)), request)


def infer_names(payload: bytes | memoryview) -> bytes:
    """Model, version and id of a ModelInferRequest as they stand in it, which is as they stand in the answer.

    Empty where they can't be made out.
    """
    spans = [(0, 0)]
    with contextlib.suppress(MalformedError, UnicodeDecodeError):
        places = _places(payload, _INFER_NAMES, (0, len(payload)))
        for _, (start, end) in places:
            bytes(payload[start:end]).decode()
        spans = [span for span, _ in places]
    return b"".join(payload[start:end] for start, end in spans)


def _places(payload: bytes | memoryview, marks: frozenset[int], request: Span) -> list[tuple[Span, Span]]:
    """Where fields with these tags lie: the span of the whole field, and of what is in it."""
    places, before = [], request[0]
    for mark, start, end in fields(payload, *request, _MOST_REQUEST_FIELDS):
        if mark in marks:
            places.append(((before, end), (start, end)))
        before = end
    return places


def timeout_seconds(payload: bytes | memoryview, number: int, request: Span) -> float:
    """How long after its arrival a call's answer is of use; infinity if for ever, or if a worker is to refuse it.

    Raises:
        MalformedError: the request can't be followed.
    """
    seconds = math.inf
    for _, inside in options(payload, number, request):
        for mark, start, _ in fields(payload, *inside, _MOST_FIELDS):
            if mark == _TIMEOUT:
                (seconds,) = struct.unpack_from("<d", payload, start)
    return seconds if seconds > 0 else math.inf


def cancelled_ids(payload: bytes | memoryview) -> set[int]:
    """The ids that a StreamRequest cancels.

    Raises:
        MalformedError: it is no cancellation.
    """
    ids: set[int] = set()
    for mark, *span in fields(payload, 0, len(payload), _MOST_FIELDS):
        if mark != _CANCEL:
            raise MalformedError
        for inner_mark, start, end in fields(payload, span[0], span[1], len(payload)):
            if inner_mark in _IDS and (end - start) % 8 == 0:
                ids.update(struct.unpack_from(f"<{(end - start) // 8}Q", payload, start))
    return ids
