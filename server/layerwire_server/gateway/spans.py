"""The calls of a message as far as a gateway tells them apart: where each lies, its id, how long it is wanted.

It knows the wire format of StreamRequest down to a call's options; nothing of operators and tensors. Lengths are
followed, nothing is parsed.

Nothing here runs while all is well. What can't be followed, or has more fields than any message of ours, raises
UnclearError: a worker will say what is wrong with it.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from layerwire.v1 import layerwire_pb2
from layerwire_server.link import MAX_CALLS, Family

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are in no message of ours
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MOST_FIELDS = 16  # of a call or options: none of ours has as many
_MOST_REQUEST_FIELDS = 1200  # of a request: Differentiate may want 1024 gradients by 64 others
_CALLS = layerwire_pb2.StreamRequest.CALLS_FIELD_NUMBER
_CANCEL = layerwire_pb2.StreamRequest.CANCEL_FIELD_NUMBER
_CALL = layerwire_pb2.Calls.CALLS_FIELD_NUMBER
_ID = layerwire_pb2.Call.ID_FIELD_NUMBER
_IDS = layerwire_pb2.Cancellation.IDS_FIELD_NUMBER
_TIMEOUT = layerwire_pb2.CallOptions.TIMEOUT_SECONDS_FIELD_NUMBER


def _options(message: Any) -> dict[int, int]:
    """Number of each request's field in a message -> number of the options in that request, 0 where it has none."""
    requests = [field for field in message.oneofs_by_name["request"].fields if field.message_type is not None]
    options = [field.message_type.fields_by_name.get("options") for field in requests]
    return {
        field.number: 0 if option is None else option.number for field, option in zip(requests, options, strict=True)
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
_INFER_NAMES = frozenset((1, 2, 3))  # model_name, model_version, id
_INFER_VARYING = frozenset((3, 4))  # id, parameters

Span = tuple[int, int]


class UnclearError(Exception):
    """The bytes can't be followed."""


class Envelope(NamedTuple):
    """What stands around a request: the call's id, and which field of Call the request is; `request` is where it is."""

    call_id: int
    number: int
    request: Span


def call_spans(payload: bytes) -> list[Span]:
    """Where the calls of a StreamRequest lie, in order.

    Raises:
        UnclearError: it is none, or holds something else too.
    """
    found: list[Span] = []
    for number, wire_type, start, end in _fields(payload, (0, len(payload)), _MOST_FIELDS):
        if (number, wire_type) != (_CALLS, _DELIMITED):
            raise UnclearError
        for inner, inner_type, *span in _fields(payload, (start, end), MAX_CALLS):
            if (inner, inner_type) != (_CALL, _DELIMITED):
                raise UnclearError
            found.append((span[0], span[1]))
    if len(found) > MAX_CALLS:
        raise UnclearError
    return found


def envelope(payload: bytes, call: Span) -> Envelope:
    """What stands around a call's request.

    Raises:
        UnclearError: there are several requests, or none.
    """
    call_id, requests = 0, []
    for number, wire_type, start, end in _fields(payload, call, _MOST_FIELDS):
        if number == _ID and wire_type == _FIXED64:
            call_id = int.from_bytes(payload[start:end], "little")
        elif number in _OPTIONS and wire_type == _DELIMITED:
            requests.append((number, (start, end)))
    if len(requests) != 1:
        raise UnclearError
    return Envelope(call_id, *requests[0])


def options(payload: bytes, number: int, request: Span) -> list[tuple[Span, Span]]:
    """Where the options of a request lie: the span of the whole field, and of what is in it.

    Raises:
        UnclearError: the request can't be followed.
    """
    if number == _DIFFERENTIATE:
        inner = [
            (_INNER_OPTIONS[field], (start, end))
            for field, wire_type, start, end in _fields(payload, request, _MOST_REQUEST_FIELDS)
            if field in _INNER_OPTIONS and wire_type == _DELIMITED
        ]
        return [found for field, span in inner for found in _found(payload, frozenset((field,)), span)]
    if number == INFER:
        return _found(payload, _INFER_VARYING, request)
    return _found(payload, frozenset((_OPTIONS.get(number, 0),)), request)


def infer_names(payload: bytes) -> bytes:
    """Model, version and id of a ModelInferRequest as they stand in it, which is as they stand in the answer.

    Empty where they can't be told.
    """
    spans = [(0, 0)]
    with contextlib.suppress(UnclearError, UnicodeDecodeError):
        whole = _found(payload, _INFER_NAMES, (0, len(payload)))
        for _, (start, end) in whole:
            payload[start:end].decode()
        spans = [span for span, _ in whole]
    return b"".join(payload[start:end] for start, end in spans)


def prefix(number: int, nbytes: int) -> bytes:
    """Tag and length of a length-delimited field; layerwire.wire.framing has it too, but brings numpy."""
    out = bytearray([number << 3 | _DELIMITED])
    while nbytes > 0x7F:
        out.append(nbytes & 0x7F | 0x80)
        nbytes >>= 7
    return bytes(out) + bytes([nbytes])


def _found(payload: bytes, wanted: frozenset[int], request: Span) -> list[tuple[Span, Span]]:
    found, before = [], request[0]
    for field, wire_type, start, end in _fields(payload, request, _MOST_REQUEST_FIELDS):
        if field in wanted and wire_type == _DELIMITED:
            found.append(((before, end), (start, end)))
        before = end
    return found


def timeout_seconds(payload: bytes, number: int, request: Span) -> float:
    """How long after its arrival a call is wanted; infinity if for ever, or if what it says is for a worker to refuse.

    Raises:
        UnclearError: the request can't be followed.
    """
    seconds = math.inf
    for _, inside in options(payload, number, request):
        for field, wire_type, start, _ in _fields(payload, inside, _MOST_FIELDS):
            if field == _TIMEOUT and wire_type == _FIXED64:
                (seconds,) = struct.unpack_from("<d", payload, start)
    return seconds if seconds > 0 else math.inf


def cancelled_ids(payload: bytes) -> set[int]:
    """The ids that a StreamRequest cancels.

    Raises:
        UnclearError: it is no cancellation.
    """
    ids: set[int] = set()
    for number, wire_type, *span in _fields(payload, (0, len(payload)), _MOST_FIELDS):
        if (number, wire_type) != (_CANCEL, _DELIMITED):
            raise UnclearError
        for inner, inner_type, start, end in _fields(payload, (span[0], span[1]), len(payload)):
            if inner == _IDS and inner_type in (_DELIMITED, _FIXED64) and (end - start) % 8 == 0:
                ids.update(struct.unpack_from(f"<{(end - start) // 8}Q", payload, start))
    return ids


def _fields(payload: bytes, span: Span, most: int) -> Iterator[tuple[int, int, int, int]]:
    """A message's fields: number, wire type, and where the value lies."""
    at, end = span
    while at < end:
        most -= 1
        tag, at = _varint(payload, at, end)
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            size, at = _varint(payload, at, end)
            after = at + size
        elif wire_type == _VARINT:
            after = _varint(payload, at, end)[1]
        elif wire_type in _SIZES:
            after = at + _SIZES[wire_type]
        else:
            raise UnclearError
        if after > end or most < 0:
            raise UnclearError
        yield tag >> 3, wire_type, at, after
        at = after


def _varint(payload: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise UnclearError
