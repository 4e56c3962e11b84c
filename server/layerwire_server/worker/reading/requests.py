"""Takes a frame's bytes apart into requests: a call each, or the calls of a group together, parsed only where new.

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
from layerwire.wire import protobuf
from layerwire.wire.framing import pack_id
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS, QUARANTINED, Family, Frame, Kind
from layerwire_server.worker.call import ID_BYTES, data_slice
from layerwire_server.worker.reading import parse_limits
from layerwire_server.worker.reading.large_data import NONE, LargeData, without_large_data
from layerwire_server.worker.reading.layouts import Layout, Layouts, calls_and_groups, group_pieces
from layerwire_server.worker.request_kinds import KINDS, KINDS_BY_RPC
from layerwire_server.worker.request_kinds.kind import NativeKind, RequestKind

_JOINED_BYTES = 16384  # of a call's data, which are copied
_STREAM_REQUEST: Any = layerwire_pb2.StreamRequest.DESCRIPTOR
_ID_TAG = protobuf.tag(layerwire_pb2.Call.ID_FIELD_NUMBER, protobuf.FIXED64)


@dataclass(eq=False, slots=True)
class GroupBytes:
    """A CallGroup as it came: the template, the data or where they are, and of how many calls they are."""

    template: bytes
    data: list[bytes | memoryview]
    count: int
    shared: layerwire_pb2.SharedData | None = None


@dataclass(eq=False, slots=True)
class Request:
    """A call of a frame, or calls of one group that follow each other.

    Attributes:
        ordinal: of the first call in its frame.
        count: how many calls.
        ids: theirs.
        is_grouped: whether they came in a CallGroup.
        group: of calls of a group, or of one that is like earlier ones: its parts.
        start: which of the group's calls is the first of these.
        fault: what is wrong with them all; "" if nothing is known to be.
        kind: of any other: what it asks for; None if that is nothing.
        message: likewise, parsed.
        content: likewise: its bytes, in a stream those behind the id; None if they don't lie plainly.
        large: likewise: what the message has marks for.
    """

    ordinal: int
    count: int
    ids: bytes
    is_grouped: bool = False
    group: GroupBytes | None = None
    start: int = 0
    fault: str = ""
    kind: RequestKind | None = None
    message: Any = None
    content: bytes | memoryview | None = None
    large: LargeData = NONE

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


def requests_of(frame: Frame, layouts: Layouts) -> list[tuple[Request, bool]]:
    """The requests of a frame that are owed an answer, each with whether it is quarantined.

    Raises:
        InvalidArgumentError: the frame as a whole is wrong.
    """
    every = _unary(frame, layouts) if frame.kind is Kind.UNARY else _calls(frame.payload, layouts)
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


def neighbours_as_one(requests: list[tuple[Request, bool]]) -> list[tuple[Request, bool]]:
    """The same, but those that came singly, are alike and follow each other are one."""
    if len(requests) == 1:
        return requests
    joint_requests: list[tuple[Request, bool]] = []
    run: list[Request] = []
    groups: list[GroupBytes] = []

    def end_run() -> None:
        if len(run) > 1:
            columns = zip(*(group.data for group in groups), strict=True)
            data: list[bytes | memoryview] = [b"".join(pieces) for pieces in columns]
            whole = GroupBytes(groups[0].template, data, len(run))
            ids = b"".join([request.ids for request in run])
            joint_requests.append((Request(run[0].ordinal, len(run), ids, group=whole), False))
        elif run:
            joint_requests.append((run[0], False))
        run.clear()
        groups.clear()

    for request, is_quarantined in requests:
        group = request.group
        if group is None or request.is_grouped or is_quarantined or sum(map(len, group.data)) > _JOINED_BYTES:
            end_run()
            joint_requests.append((request, is_quarantined))
            continue
        if run and (groups[0].template != group.template or request.ordinal != run[-1].ordinal + 1):
            end_run()
        run.append(request)
        groups.append(group)
    end_run()
    return joint_requests


def _unary(frame: Frame, layouts: Layouts) -> list[Request]:
    payload = frame.payload
    layout = layouts.find(frame.family, payload, 0, len(payload))
    if layout is not None:
        return [Request(0, 1, b"", group=_single_group(layout, payload, 0))]
    kind = KINDS_BY_RPC[frame.family]
    if isinstance(kind, NativeKind):
        message = parse(kind.request_type(), payload, kind.most_bytes)
        return [Request(0, 1, b"", kind=kind, message=message, content=payload)]
    message, large = _parse_small(kind.request_type(), payload, kind.most_bytes)
    return [Request(0, 1, b"", kind=kind, message=message, large=large)]


def _parse_small(message: Any, payload: bytes | memoryview, most_bytes: int | None) -> tuple[Any, LargeData]:
    """As `parse`, but for large data, which are marks in the message and stay where they are."""
    parse_limits.check(message.DESCRIPTOR, payload, most_bytes or parse_limits.MESSAGE_BYTES)
    small, large = without_large_data(payload, message.DESCRIPTOR)
    return parse(message, small, len(payload)), large


def _calls(payload: bytes | memoryview, layouts: Layouts) -> list[Request]:
    """The calls of a message: those like earlier ones and groups unparsed, and all others parsed."""
    layout = layouts.find(None, payload, 0, len(payload))
    if layout is not None:
        return [_group(0, *_parts(layout, payload))]
    parse_limits.check(_STREAM_REQUEST, payload)
    spans = calls_and_groups(payload)
    requests = None if spans is None else _requests_like_earlier(payload, *spans, layouts)
    if requests is None:
        message = parse(layerwire_pb2.StreamRequest(), payload).calls
        requests = _requests_of_message(message, payload, None if spans is None else spans[0])
    count = requests[-1].ordinal + requests[-1].count if requests else 0
    if count > MAX_CALLS:
        rule = f"must be at most {MAX_CALLS} a message, got {count}"
        raise OverLimitError("message_calls", "stream", "calls", rule)
    if len(requests) == 1 and requests[0].is_grouped and spans is not None and spans[1]:
        layouts.learn_frame(payload, *spans[1][0])
    return requests


def _requests_like_earlier(
    payload: bytes | memoryview, calls: list[tuple[int, int]], groups: list[tuple[int, int]], layouts: Layouts
) -> list[Request] | None:
    """None where a call has to be parsed."""
    requests = []
    for ordinal, (start, stop) in enumerate(calls):
        body = start + 1 + ID_BYTES
        layout = layouts.find(Family.NONE, payload, body, stop) if stop > body and payload[start] == _ID_TAG else None
        if layout is None:
            return None
        ids = bytes(payload[start + 1 : body])
        requests.append(Request(ordinal, 1, ids, group=_single_group(layout, payload, body)))
    count = len(requests)
    for start, stop in groups:
        pieces = group_pieces(payload, start, stop)
        if pieces is None:
            return None
        requests.append(_group(count, *pieces))
        count += requests[-1].count
    return requests


def _requests_of_message(
    message: layerwire_pb2.Calls, payload: bytes | memoryview, spans: list[tuple[int, int]] | None
) -> list[Request]:
    requests = []
    for ordinal, call in enumerate(message.calls):
        field = call.WhichOneof("request")
        request = Request(ordinal, 1, pack_id(call.id))
        if field is not None:
            request.kind, request.message = KINDS[field], getattr(call, field)
            start, stop = (0, 0) if spans is None else spans[ordinal]
            if stop > start and payload[start] == _ID_TAG:
                request.content = payload[start + 1 + ID_BYTES : stop]
        requests.append(request)
    count = len(requests)
    for group in message.groups:
        shared = group.shared if group.HasField("shared") else None
        requests.append(_group(count, group.template, group.ids, list(group.data), shared))
        count += requests[-1].count
    return requests


def _single_group(layout: Layout, payload: bytes | memoryview, at: int) -> GroupBytes:
    return GroupBytes(layout.template, [data_slice(payload, at + start, at + stop) for start, stop in layout.data], 1)


def _parts(layout: Layout, payload: bytes | memoryview) -> tuple[bytes, bytes, list[bytes | memoryview]]:
    """Template, ids and data of a frame that is one group."""
    start, stop = layout.ids
    return layout.template, bytes(payload[start:stop]), [data_slice(payload, *span) for span in layout.data]


def _group(
    ordinal: int,
    template: bytes,
    ids: bytes,
    data: list[bytes | memoryview],
    shared: layerwire_pb2.SharedData | None = None,
) -> Request:
    count, excess = divmod(len(ids), ID_BYTES)
    if not count:
        raise InvalidArgumentError("stream: ids must have 8 bytes for each call of a group, got none", field="ids")
    group = GroupBytes(template, data, count, shared)
    if not excess:
        return Request(ordinal, count, ids, True, group)
    fault = f"stream: ids must have 8 bytes for each call of a group, got {len(ids)}"
    return Request(ordinal, count, ids[: ID_BYTES * count], True, group, fault=fault)
