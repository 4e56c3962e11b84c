"""What is cut up unparsed means what the parser makes of it, whatever the bytes; and whatever comes is answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.protobuf import prefix, varint
from layerwire_server.link import Family, Frame, Kind
from layerwire_server.worker.reading.decoder import Failure
from layerwire_server.worker.reading.layouts import Layouts, calls_and_groups, group_pieces
from layerwire_server.worker.reading.requests import requests_of
from layerwire_server.worker.request_kinds import NATIVE_KINDS
from tests.operators.local import Local, message_of
from tests.programs.local import REQUESTS
from tests.worker.groups import group_of, tensors_of
from tests.worker.request_kinds.test_run import SUM

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def named(call: pb.Call) -> pb.Call:
    call.linear.weight.Clear()
    call.linear.weight.name = "w"
    return call


def calls_of(scale: float) -> dict[str, pb.Call]:
    """Calls that differ in their data only."""
    x = X * np.float32(scale)
    calls = {
        "one tensor": message_of(REQUESTS.relu(x)),
        "three tensors": message_of(REQUESTS.linear(x, x, np.float32([scale, 1]))),
        "named weights": named(message_of(REQUESTS.linear(x, x))),
        "an empty tensor": message_of(REQUESTS.relu(x[:0])),
        "a program": message_of(REQUESTS.run("net", {"zz": x, "a": x + 1, "ß": x + 2})),
        "gradients": message_of(REQUESTS.differentiate(lambda f: f.run(SUM, {"x": x}), {"y": x + 1}, ["x"])),
    }
    for call in calls.values():
        call.id = 0
    return calls


NAMES = list(calls_of(1))


def body_of(call: pb.Call) -> bytes:
    """A call's bytes behind the id."""
    copy = pb.Call()
    copy.CopyFrom(call)
    copy.id = 0
    return copy.SerializeToString(deterministic=True)


def frame_of(bodies: list[bytes], groups: list[pb.CallGroup] = []) -> bytes:  # noqa: B006
    calls = b"".join(
        prefix(1, 9 + len(body)) + b"\x09" + number.to_bytes(8, "little") + body for number, body in enumerate(bodies)
    )
    message = calls + pb.Calls(groups=groups).SerializeToString()
    return prefix(1, len(message)) + message


def learned(layouts: Layouts, call: pb.Call, content: bytes, family: Family = Family.NONE) -> None:
    field = call.WhichOneof("request")
    assert field is not None
    for _ in range(2):
        layouts.learn(NATIVE_KINDS[field], getattr(call, field), family, content, NAMES)


def message_from(group: Any) -> pb.Call:
    """What a template and data stand for."""
    call = pb.Call.FromString(group.template)
    tensors = [tensor for tensor in tensors_of(call) if tensor.WhichOneof("content") != "name"]
    for tensor, data in zip(tensors, group.data, strict=True):
        tensor.data = bytes(data)
    return call


@pytest.mark.parametrize("name", NAMES)
def test_a_request_like_an_earlier_one_is_not_parsed(name: str) -> None:
    layouts = Layouts()
    learned(layouts, calls_of(1)[name], body_of(calls_of(1)[name]))
    other = calls_of(5)[name]
    requests = [request for request, _ in requests_of(Frame(Kind.CALLS, 1, frame_of([body_of(other)] * 2)), layouts)]
    assert [request.ordinal for request in requests] == [0, 1]
    for request in requests:
        assert request.message is None and request.group is not None
        assert message_from(request.group) == other


@pytest.mark.parametrize("name", NAMES)
def test_a_unary_request_is_known_again(name: str) -> None:
    layouts, one, other = Layouts(), calls_of(1)[name], calls_of(5)[name]
    field = one.WhichOneof("request")
    family = Family[field.upper()]
    learned(layouts, one, getattr(one, field).SerializeToString(deterministic=True), family)
    payload = memoryview(getattr(other, field).SerializeToString(deterministic=True))
    ((request, _),) = requests_of(Frame(Kind.UNARY, 1, payload, family=family), layouts)
    assert request.group is not None
    assert message_from(request.group) == other
    assert layouts.find(Family.NONE, payload, 0, len(payload)) is None, "what it came by counts"


def test_it_takes_two_alike_to_be_remembered() -> None:
    layouts, call = Layouts(), calls_of(1)["one tensor"]
    body = body_of(call)
    for plan in (1, 2, 3):
        layouts.learn(NATIVE_KINDS["activate"], call.activate, Family.NONE, body, plan)
    assert layouts.find(Family.NONE, body, 0, len(body)) is None


TENSOR = b"\x08\x01\x12\x02\x02\x03" + prefix(3, 24) + bytes(24)
UNCLEAR = {
    "a tensor twice": prefix(5, 68) + (prefix(3, 32) + TENSOR) * 2,
    "data twice": prefix(5, 60) + prefix(3, 58) + TENSOR + prefix(3, 24) + bytes(24),
    "data, then a name": prefix(5, 37) + prefix(3, 35) + TENSOR + b"\x22\x01w",
    "an unknown field": prefix(5, 37) + prefix(3, 32) + TENSOR + b"\xf8\x3f\x01",
    "two requests": (prefix(5, 34) + prefix(3, 32) + TENSOR) * 2,
    "an id behind": prefix(5, 34) + prefix(3, 32) + TENSOR + b"\x09" + bytes(8),
    "a tensor without data": prefix(5, 8) + prefix(3, 6) + TENSOR[:6],
    "long parameters": prefix(5, 34 + 5007)
    + prefix(2, 5004)
    + prefix(999, 5000)
    + bytes(5000)
    + prefix(3, 32)
    + TENSOR,
}


@pytest.mark.parametrize("body", UNCLEAR.values(), ids=UNCLEAR)
def test_what_is_not_laid_out_plainly_is_parsed_each_time(body: bytes) -> None:
    layouts = Layouts()
    learned(layouts, pb.Call.FromString(body), body)
    assert layouts.find(Family.NONE, body, 0, len(body)) is None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame of calls and groups, in which some bytes are others, are missing, or are there twice."""
    scale = draw(st.sampled_from([2.0, 3.0]))
    bodies = [body_of(calls_of(scale)[name]) for name in draw(st.lists(st.sampled_from(NAMES), max_size=3))]
    relu = calls_of(scale)["one tensor"]
    groups = [group_of([relu] * count) for count in draw(st.lists(st.integers(1, 3), max_size=2))]
    payload = bytearray(frame_of(bodies, groups))
    for _ in range(draw(st.integers(0, 3))):
        if payload:
            at = draw(st.integers(0, len(payload) - 1))
            piece = draw(
                st.sampled_from([b"", b"\x00", b"\xff", b"\x0a", b"\x12", b"\x1a\x00", bytes(payload[at : at + 9])])
            )
            payload[at : at + draw(st.integers(0, 2))] = piece
    return bytes(payload)


@settings(max_examples=400, deadline=None)
@given(damaged(), st.booleans())
def test_any_frame_is_read_as_the_parser_reads_it(payload: bytes, as_view: bool) -> None:
    layouts = Layouts()
    for call in calls_of(1).values():
        learned(layouts, call, body_of(call))
    assert_read_as_parsed(layouts, memoryview(payload) if as_view else payload)


@st.composite
def like_known(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A frame that is one group, and one as long in which some bytes are others."""
    request = calls_of(2.0)[draw(st.sampled_from([name for name in NAMES if name != "gradients"]))]
    known = frame_of([], [group_of([request] * draw(st.integers(1, 20)))])
    payload = bytearray(known)
    for _ in range(draw(st.integers(0, 3))):
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.sampled_from([0, 1, 8, 9, 10, 18, 26, 128, 255]))
    return known, bytes(payload)


@settings(max_examples=300, deadline=None)
@given(like_known(), st.booleans())
def test_a_frame_as_long_as_a_known_one_is_read_as_the_parser_reads_it(
    frames: tuple[bytes, bytes], as_view: bool
) -> None:
    layouts, (known, payload) = Layouts(), frames
    for _ in range(2):
        requests_of(Frame(Kind.CALLS, 1, known), layouts)
    assert layouts.find(None, known, 0, len(known)) is not None
    assert_read_as_parsed(layouts, memoryview(payload) if as_view else payload)


def assert_read_as_parsed(layouts: Layouts, payload: bytes | memoryview) -> None:
    frame = Frame(Kind.CALLS, 1, payload)
    try:
        requests = [request for request, _ in requests_of(frame, layouts)]
    except InvalidArgumentError:
        requests = None
    try:
        message = pb.StreamRequest.FromString(bytes(payload)).calls
    except DecodeError:
        assert requests is None
        return
    if any(len(group.ids) < 8 for group in message.groups):
        assert requests is None
        return
    assert requests is not None
    calls, groups = requests[: len(message.calls)], requests[len(message.calls) :]
    for request, call in zip(calls, message.calls, strict=True):
        assert int.from_bytes(request.ids, "little") == call.id
        if request.group is not None:
            call.id = 0
            assert message_from(request.group) == call
    for request, group in zip(groups, message.groups, strict=True):
        assert request.group is not None
        assert (request.group.template, request.ids) == (group.template, group.ids[: len(group.ids) // 8 * 8])
        assert list(map(bytes, request.group.data)) == list(group.data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=40), st.lists(st.binary(max_size=50), max_size=3), st.booleans())
def test_whatever_a_group_holds_each_id_is_owed_something(
    template: bytes, ids: bytes, data: list[bytes], like: bool
) -> None:
    local = Local()
    if like:
        template = group_of([calls_of(1)["one tensor"]]).template + template
    group = pb.CallGroup(template=template, ids=ids, data=data)
    frame = Frame(Kind.CALLS, 1, pb.StreamRequest(calls=pb.Calls(groups=[group])).SerializeToString())
    try:
        requests = local.decoder.requests(frame)
    except InvalidArgumentError:
        assert len(ids) < 8
        return
    found = [
        (item.request if isinstance(item, Failure) else item)
        for request, _ in requests
        for item in local.decoder.calls(request, frame)
    ]
    ordinals = [item.ordinal + index for item in found for index in range(item.count)]
    assert ordinals == list(range(len(ids) // 8))
    assert b"".join(item.ids for item in found) == ids[: len(ids) // 8 * 8]


@pytest.mark.parametrize("length", [b"\x80", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\x01", b"\x80" * 11])
def test_lengths_that_leave_the_message_are_the_parsers(length: bytes) -> None:
    assert calls_and_groups(b"\x0a" + length) is None
    assert group_pieces(b"\x0a" + length, 0, 1 + len(length)) is None
    assert calls_and_groups(b"\x0a" + varint(3) + b"\x12" + length) is None
