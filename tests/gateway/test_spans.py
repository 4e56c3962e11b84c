"""The gateway's view of a message's calls agrees with protobuf's, and bytes that are no message do no harm."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2, tensor_pb2
from layerwire.wire.protobuf import MalformedError
from layerwire_server.gateway import spans as walker

OPTIONS = st.builds(
    pb.CallOptions,
    timeout_seconds=st.none() | st.floats(-1, 1e6),
    priority=st.integers(-99, 99),
    deterministic=st.booleans(),
)
TENSORS = st.builds(tensor_pb2.Tensor, shape=st.lists(st.integers(0, 300), max_size=4), data=st.binary(max_size=200))
RELU = operators_pb2.ActivateOperator(relu=operators_pb2.Relu())
CALLS = st.one_of(
    st.builds(
        pb.Call,
        id=st.integers(0, 2**64 - 1),
        activate=st.builds(pb.ActivateRequest, options=st.none() | OPTIONS, operator=st.just(RELU), input=TENSORS),
    ),
    st.builds(pb.Call, id=st.integers(0, 9), linear=st.builds(pb.LinearRequest, options=OPTIONS, bias=TENSORS)),
)

GROUPS = st.builds(
    lambda call, ids, widths: pb.CallGroup(
        template=call.SerializeToString(),
        ids=b"".join(call_id.to_bytes(8, "little") for call_id in ids),
        data=[bytes(range(width)) * len(ids) for width in widths],
    ),
    CALLS, st.lists(st.integers(0, 2**64 - 1), max_size=4), st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip


@given(st.lists(st.lists(CALLS, max_size=4), min_size=1, max_size=3))
def test_calls_are_where_protobuf_finds_them(frames):
    payload = b"".join(pb.StreamRequest(calls=pb.Calls(calls=some)).SerializeToString() for some in frames)
    expected = pb.StreamRequest.FromString(payload).calls.calls
    spans = walker.contents(payload).calls
    assert [pb.Call.FromString(payload[start:end]) for start, end in spans] == list(expected)
    for span, call in zip(spans, expected, strict=True):
        envelope = walker.envelope(payload, span)
        name = call.WhichOneof("request")
        start, end = envelope.request
        assert envelope.call_id == call.id
        assert envelope.number == pb.Call.DESCRIPTOR.fields_by_name[name].number
        assert payload[start:end] == getattr(call, name).SerializeToString()
        timeout = getattr(call, name).options.timeout_seconds
        seconds = walker.timeout_seconds(payload, envelope.number, envelope.request)
        assert seconds == (timeout if timeout > 0 else float("inf"))


@given(st.sets(st.integers(0, 2**64 - 1), max_size=50), st.booleans())
def test_cancelled_ids_are_those_of_protobuf(ids, packed):
    payload = pb.StreamRequest(cancel=pb.Cancellation(ids=ids)).SerializeToString()
    if not packed:
        inner = b"".join(b"\x09" + call_id.to_bytes(8, "little") for call_id in ids)
        payload = b"\x12" + len(inner).to_bytes(1, "little") + inner if len(inner) < 128 else payload
    assert set(pb.StreamRequest.FromString(payload).cancel.ids) == ids
    assert walker.cancelled_ids(payload) == ids


@given(st.lists(st.tuples(st.lists(CALLS, max_size=2), st.lists(GROUPS, max_size=3)), min_size=1, max_size=3))
def test_groups_are_where_protobuf_finds_them(frames):
    payload = b"".join(pb.StreamRequest(calls=pb.Calls(calls=calls, groups=groups)).SerializeToString()
                       for calls, groups in frames)  # fmt: skip
    expected = pb.StreamRequest.FromString(payload).calls
    places = walker.contents(payload)
    assert places.call_count == len(expected.calls) + sum(len(group.ids) // 8 for group in expected.groups)
    ordinal = len(expected.calls)
    for (first, place), group in zip(places.groups_from(), expected.groups, strict=True):
        assert first == ordinal
        ordinal += len(group.ids) // 8
        assert payload[slice(*place.template)] == group.template
        assert walker.group_ids(payload, place) == _ids(group.ids)
        rows = [[payload[slice(*span)] for span in place.row(index)] for index in range(place.call_count)]
        assert [b"".join(pieces) for pieces in zip(*rows, strict=True)] == list(group.data)[
            : len(group.data) if rows else 0
        ]


def _ids(packed):
    return tuple(int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed) - 7, 8))


@given(st.binary(max_size=60), st.lists(CALLS, max_size=2), st.lists(GROUPS, max_size=2), st.integers(0, 600))
def test_garbage_is_unclear_or_what_protobuf_sees(garbage, some, groups, at):
    message = pb.StreamRequest(calls=pb.Calls(calls=some, groups=groups)).SerializeToString()
    payload = message[:at] + garbage + message[at + len(garbage) :]
    with contextlib.suppress(MalformedError):
        walker.cancelled_ids(payload)
    try:
        places = walker.contents(payload)
        ids = [walker.envelope(payload, span).call_id for span in places.calls]
        group_ids = [walker.group_ids(payload, group) for group in places.groups]
    except MalformedError:
        return
    with contextlib.suppress(DecodeError):
        message = pb.StreamRequest.FromString(payload).calls
        assert ids == [call.id for call in message.calls]
        assert group_ids == [_ids(group.ids) for group in message.groups]


@pytest.mark.parametrize("payload", [b"\x0a\x05", b"\x0b", b"\x0a" + b"\x80" * 20, b"\x10\x01" * 20], ids=repr)
def test_what_cannot_be_followed_says_so(payload):
    with pytest.raises(MalformedError):
        walker.contents(payload)


def test_a_message_of_too_many_calls_is_left_to_the_worker():
    payload = pb.StreamRequest(calls=pb.Calls(calls=[pb.Call()] * 4097)).SerializeToString()
    with pytest.raises(MalformedError):
        walker.contents(payload)


@pytest.mark.parametrize(
    "groups",
    [
        [pb.CallGroup(ids=bytes(8 * 4097))],
        [pb.CallGroup(ids=bytes(8 * 2048))] * 2 + [pb.CallGroup(ids=bytes(8))],
        [pb.CallGroup(data=[b""] * 2000)],
        [pb.CallGroup(data=[b""] * 1100)] * 100,
    ],
    ids=["ids of one", "ids of several", "data of one", "data of many"],
)
def test_groups_of_too_much_are_left_to_the_worker(groups):
    payload = pb.StreamRequest(calls=pb.Calls(groups=groups)).SerializeToString()
    with pytest.raises(MalformedError):
        walker.contents(payload)


def test_data_that_cannot_be_divided_among_the_calls_says_so():
    payload = pb.StreamRequest(
        calls=pb.Calls(groups=[pb.CallGroup(ids=bytes(24), data=[bytes(7)])])
    ).SerializeToString()
    (group,) = walker.contents(payload).groups
    with pytest.raises(MalformedError):
        group.row(0)
