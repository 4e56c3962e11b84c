"""What a frame from a gateway asks for: its calls, and those that are wrong from the start.

It knows messages, frames and calls; neither lanes nor devices.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError
from layerwire.v1 import layerwire_pb2
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS, QUARANTINED, Family, Frame, Kind
from layerwire_server.worker.call import Call
from layerwire_server.worker.reading import parse_limits
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import infer as inference
from layerwire_server.worker.request_kinds.operator import REQUESTS
from layerwire_server.worker.weights.weights_cache import Absent

log = logging.getLogger(__name__)

UNARY_FAMILIES: dict[Family, str] = {Family[name.upper()]: name for name in REQUESTS}
_MOST_BYTES = {"infer": inference.MOST_BYTES}  # beside tensors' data, where it isn't outline's


class Unread(NamedTuple):
    """A call of a frame before it is decoded."""

    ordinal: int
    call_id: int
    family: str | None
    request: Any


def parse(message: Any, payload: bytes | memoryview, most_bytes: int = parse_limits.MESSAGE_BYTES) -> Any:
    """The message with the payload's fields, if it has at most so many bytes beside its tensors' data.

    Raises:
        InvalidArgumentError: the payload is no such message, or would become far larger by parsing.
    """
    parse_limits.check(message.DESCRIPTOR, payload, most_bytes)
    try:
        message.ParseFromString(payload)
    except DecodeError:
        raise InvalidArgumentError(f"the message is no {message.DESCRIPTOR.name}") from None
    return message


def unread_calls(frame: Frame) -> list[Unread]:
    """The calls of a frame, none looked at yet.

    Raises:
        InvalidArgumentError: the frame as a whole is wrong.
    """
    if frame.kind is Kind.UNARY:
        family = UNARY_FAMILIES[frame.family]
        most_bytes = _MOST_BYTES.get(family, parse_limits.MESSAGE_BYTES)
        return [Unread(0, 0, family, parse(REQUESTS[family](), frame.payload, most_bytes))]
    calls = parse(layerwire_pb2.StreamRequest(), frame.payload).calls.calls
    if len(calls) > MAX_CALLS:
        rule = f"must be at most {MAX_CALLS} a message, got {len(calls)}"
        raise OverLimitError("message_calls", "stream", "calls", rule)
    return [Unread(ordinal, call.id, call.WhichOneof("request"), call) for ordinal, call in enumerate(calls)]


def read(decoder: CallDecoder, frame: Frame, unread: Unread) -> Call | LayerwireError:
    """The call, or what is wrong with it.

    Raises:
        Absent: what it needs has to be brought first.
    """
    try:
        if unread.family is None:
            return InvalidArgumentError("stream: request is required", field="request")
        request = unread.request if frame.kind is Kind.UNARY else getattr(unread.request, unread.family)
        call = decoder.decode(unread.family, request, frame.arrived, frame.deadline)
    except LayerwireError as error:
        return error
    except Absent:
        raise
    except Exception:
        error_id = secrets.token_hex(8)
        log.exception("call can't be decoded", extra={"fields": {"error_id": error_id, "request": frame.id}})
        return InternalError(f"{unread.family}: failed, error id {error_id}", error_id=error_id)
    call.call_id, call.ordinal = unread.call_id, unread.ordinal
    return call


def owed(frame: Frame, unread: list[Unread]) -> Iterator[tuple[Unread, bool]]:
    """The calls that are owed an answer, each with whether it is quarantined."""
    if not frame.ordinals:
        for call in unread:
            yield call, False
        return
    quarantined = {ordinal & ~QUARANTINED for ordinal in frame.ordinals if ordinal & QUARANTINED}
    answered = {ordinal for ordinal in frame.ordinals if not ordinal & QUARANTINED}
    for call in unread:
        if call.ordinal not in answered:
            yield call, call.ordinal in quarantined
