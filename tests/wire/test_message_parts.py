"""Messages in parts: each part is a message of the contract, and together they are what they were cut from."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire import message_parts
from layerwire.wire.message_parts import PART_BYTES, TAG, Assembly, parts
from layerwire.wire.protobuf import MalformedError

SIZES = st.integers(0, 3 * PART_BYTES) | st.integers(0, 5) | st.sampled_from([PART_BYTES - 1, PART_BYTES])


def assembly():
    return Assembly(lambda nbytes: memoryview(bytearray(nbytes)))


def part(data=b"", message_bytes=None):
    return pb.StreamRequest(part=pb.MessagePart(message_bytes=message_bytes, data=data)).SerializeToString()


@given(st.lists(SIZES, max_size=6))
@settings(deadline=None, max_examples=50)  # megabytes, on a machine that may be busy
def test_parts_are_put_together_again(sizes):
    pieces = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    whole = b"".join(pieces)
    cut = list(parts(pieces, len(whole)))
    contents = [pb.StreamRequest.FromString(one).part for one in cut]
    assert b"".join(one.data for one in contents) == whole
    assert [one.HasField("message_bytes") for one in contents] == [index == 0 for index in range(len(cut))]
    assert contents[0].message_bytes == len(whole)
    assert all(len(one.data) == PART_BYTES for one in contents[:-1])
    assert all(pb.StreamResponse.FromString(one).part == content for one, content in zip(cut, contents, strict=True))
    together = assembly()
    *firsts, last = [together.add(one) for one in cut]
    assert firsts == [None] * len(firsts)
    assert last == whole
    assert not together.is_open


def test_a_part_without_message_says_that_they_are_understood():
    together = assembly()
    assert together.add(message_parts.EMPTY) is None
    assert pb.StreamRequest.FromString(message_parts.EMPTY) == pb.StreamRequest(part={})
    assert not together.is_open


@pytest.mark.parametrize(
    "wrong",
    [
        [part(b"x")],
        [part(b"xx", 1)],
        [part(b"x", 3), part(b"y", 3)],
        [part(b"x", 3), part(b"yz!")],
        [part(b"x", 1) + b"\x0a\x00"],
        [part(b"x", 1), part(b"x")],
        [bytes((TAG,))],
        [bytes((TAG, 200))],
        [bytes((TAG, 4, 0x12, 100, 0, 0))],
        [bytes((TAG, 1, 0x09))],
    ],
)
def test_what_is_not_the_next_part_is_refused(wrong):
    together = assembly()
    *firsts, last = wrong
    for one in firsts:
        together.add(one)
    with pytest.raises((MalformedError, struct.error)) as error:
        together.add(last)
    assert error.type is MalformedError
