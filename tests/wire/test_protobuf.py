"""What is written by hand protobuf reads, and what protobuf writes is followed; hostile bytes end in one error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import tensor_pb2
from layerwire.wire.protobuf import (
    DELIMITED,
    FIXED32,
    FIXED64,
    VARINT,
    GroupError,
    MalformedError,
    field,
    fields,
    prefix,
    tag,
    varint,
)


def every(payload, most=100):
    return list(fields(payload, 0, len(payload), most))


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_read_as_they_are_written(value):
    size = len(varint(value))
    assert every(varint(tag(1, VARINT)) + varint(value)) == [(tag(1, VARINT), 1, 1 + size)]
    assert pb.CallOptions.FromString(varint(tag(999, VARINT)) + varint(value)) is not None


@given(st.integers(1, 2**29 - 1), st.binary(max_size=300))
def test_a_field_is_what_its_prefix_says(number, content):
    payload = field(number, content)
    assert payload == prefix(number, len(content)) + content
    assert every(payload) == [(tag(number), len(payload) - len(content), len(payload))]


@given(st.lists(st.integers(0, 2**60), max_size=5), st.binary(max_size=200))
def test_fields_are_where_protobuf_puts_them(shape, data):
    payload = tensor_pb2.Tensor(dtype=1, shape=shape, data=data).SerializeToString()
    places = {mark: payload[start:end] for mark, start, end in every(payload)}
    assert places.get(tag(3), b"") == data
    assert places[tag(1, VARINT)] == b"\1"
    assert places.get(tag(2), b"") == b"".join(map(varint, shape))


def test_numbers_of_a_fixed_size():
    payload = bytes([tag(1, FIXED64)]) + bytes(8) + bytes([tag(2, FIXED32)]) + bytes(4)
    assert every(payload) == [(tag(1, FIXED64), 1, 9), (tag(2, FIXED32), 10, 14)]


def test_a_message_inside_another_is_followed_to_its_own_end():
    payload = field(1, field(2, b"ab")) + field(3, b"c")
    ((_, start, end), _) = every(payload)
    assert list(fields(payload, start, end, 100)) == [(tag(2), 4, 6)]


HOSTILE = {
    "a length beyond the end": prefix(1, 5) + b"1234",
    "a length of 2**63": prefix(1, 2**63),
    "a length that isn't there": bytes([tag(1, DELIMITED)]),
    "a number that doesn't end": bytes([tag(1, VARINT)]) + b"\x80" * 20,
    "a tag that doesn't end": b"\x80" * 3,
    "a fixed number cut off": bytes([tag(1, FIXED64)]) + bytes(7),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_what_leaves_its_message_is_malformed(payload):
    with pytest.raises(MalformedError):
        every(payload)


@pytest.mark.parametrize("wire_type", [3, 4, 6, 7])
def test_groups_are_an_error_of_their_own(wire_type):
    with pytest.raises(GroupError):
        every(bytes([tag(1, wire_type)]) + b"\0")


def test_there_is_an_end_to_fields():
    assert len(every(b"\x08\x01" * 100)) == 100
    with pytest.raises(MalformedError):
        every(b"\x08\x01" * 101)


@given(st.binary(max_size=80))
def test_any_bytes_are_followed_or_malformed(payload):
    at = 0
    try:
        for _, start, end in fields(payload, 0, len(payload), 80):
            assert at < start <= end <= len(payload)
            at = end
    except MalformedError:
        return
    assert at == len(payload)
