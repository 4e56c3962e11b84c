"""Takes a frame's bytes apart into requests: a call each, or the calls of a group together, none of them opened yet.

It knows frames and messages; nothing of what a request asks for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import layerwire_pb2
from layerwire.wire.framing import pack_id
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS, QUARANTINED, Frame, Kind
from layerwire_server.worker.call import ID_BYTES
from layerwire_server.worker.reading import parse_limits
from layerwire_server.worker.request_kinds import KINDS, KINDS_BY_RPC
from layerwire_server.worker.request_kinds.kind import RequestKind


@dataclass(eq=False, slots=True)
class GroupBytes:
    """A CallGroup as it came: the template, the data, and of how many calls they are."""

    template: bytes
    data: list[bytes]
    count: int


@dataclass(eq=False, slots=True)
class Request:
    """A call of a frame, or calls of one group that follow each other.

    Attributes:
        ordinal: of the first call in its frame.
        count: how many calls.
        ids: theirs.
        kind: of a call by itself; None if it asks for nothing.
        message: likewise.
        group: of calls of a group: the group.
        start: which of the group's calls is the first of these.
        fault: what is wrong with them all; "" if nothing is known to be.
    """

    ordinal: int
    count: int
    ids: bytes
    kind: RequestKind | None = None
    message: Any = None
    group: GroupBytes | None = None
    start: int = 0
    fault: str = ""

    @property
    def is_grouped(self) -> bool:
        """Whether they came in a CallGroup."""
        return self.group is not None

    def part(self, start: int, stop: int) -> Request:
        """Some of the calls."""
        return replace(
            self,
            ordinal=self.ordinal + start,
            count=stop - start,
            ids=self.ids[ID_BYTES * start : ID_BYTES * stop],
            start=self.start + start,
        )

    def singles(self) -> Iterator[Request]:
        """Each of the calls."""
        return (self.part(index, index + 1) for index in range(self.count))


def parse(message: Any, payload: bytes | memoryview, most_bytes: int | None = None) -> Any:
    """The message with the payload's fields, if it has at most so many bytes beside its tensors' data.

    Raises:
        InvalidArgumentError: the payload is no such message, or would become far larger by parsing.
    """
    parse_limits.check(message.DESCRIPTOR, payload, most_bytes or parse_limits.MESSAGE_BYTES)
    try:
        message.ParseFromString(payload)
    except DecodeError:
        raise InvalidArgumentError(f"the message is no {message.DESCRIPTOR.name}") from None
    return message


def requests_of(frame: Frame) -> list[tuple[Request, bool]]:
    """The requests of a frame that are owed an answer, each with whether it is quarantined.

    Raises:
        InvalidArgumentError: the frame as a whole is wrong.
    """
    every = _requests(frame)
    if not frame.ordinals:
        return [(request, False) for request in every]
    answers = frozenset(ordinal for ordinal in frame.ordinals if not ordinal & QUARANTINED)
    quarantine = frozenset(ordinal & ~QUARANTINED for ordinal in frame.ordinals if ordinal & QUARANTINED)

    def state(ordinal: int) -> bool | None:
        """Whether a call is quarantined; None if it was answered."""
        return None if ordinal in answers else ordinal in quarantine

    requests = []
    for request in every:
        ordinals = range(request.ordinal, request.ordinal + request.count)
        for is_quarantined, run in itertools.groupby(ordinals, state):
            if is_quarantined is not None:
                first, *others = run
                start = first - request.ordinal
                requests.append((request.part(start, start + 1 + len(others)), is_quarantined))
    return requests


def _requests(frame: Frame) -> list[Request]:
    if frame.kind is Kind.UNARY:
        kind = KINDS_BY_RPC[frame.family]
        return [Request(0, 1, b"", kind, parse(kind.request_type(), frame.payload, kind.most_bytes))]
    message = parse(layerwire_pb2.StreamRequest(), frame.payload).calls
    singles, groups = message.calls, message.groups
    requests = [_single(ordinal, call) for ordinal, call in enumerate(singles)]
    count = len(requests)
    for group in groups:
        request = _group(count, group)
        count += request.count
        requests.append(request)
    if count > MAX_CALLS:
        rule = f"must be at most {MAX_CALLS} a message, got {count}"
        raise OverLimitError("message_calls", "stream", "calls", rule)
    return requests


def _single(ordinal: int, call: layerwire_pb2.Call) -> Request:
    field = call.WhichOneof("request")
    if field is None:
        return Request(ordinal, 1, pack_id(call.id))
    return Request(ordinal, 1, pack_id(call.id), KINDS[field], getattr(call, field))


def _group(ordinal: int, group: layerwire_pb2.CallGroup) -> Request:
    ids = group.ids
    count, excess = divmod(len(ids), ID_BYTES)
    if not count:
        raise InvalidArgumentError("stream: ids must have 8 bytes for each call of a group, got none", field="ids")
    fault = f"stream: ids must have 8 bytes for each call of a group, got {len(ids)}" if excess else ""
    whole = GroupBytes(group.template, list(group.data), count)
    return Request(ordinal, count, ids[: ID_BYTES * count], group=whole, fault=fault)
