"""Frames over the link: whole however they are cut, large ones too, and damage is found."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwire_server.link import HEADER_BYTES, QUARANTINED, Decoder, Family, Flag, Frame, Kind, LinkError, encode

FRAMES = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    frame=st.integers(0, 2**64 - 1),
    payload=st.one_of(st.binary(max_size=50), st.just(b"x" * 300_000)),
    flags=st.sampled_from([Flag.NONE, Flag.LAST, Flag.LAST | Flag.ERROR, Flag.ISOLATE]),
    family=st.sampled_from(Family),
    ordinals=st.lists(st.integers(0, 4095).map(lambda n: n | QUARANTINED if n % 7 == 0 else n), max_size=5).map(tuple),
    stream=st.integers(0, 2**64 - 1),
    arrived=st.floats(0, 1e9),
    deadline=st.sampled_from([math.inf, 0.0, 123.5]),
)


def whole(frame):
    return frame._replace(payload=bytes(frame.payload))


@settings(max_examples=60, deadline=None)
@given(frames=st.lists(FRAMES, max_size=5), cuts=st.lists(st.integers(1, 200_000), min_size=1, max_size=8))
def test_frames_come_whole_however_they_are_cut(frames, cuts):
    data = b"".join(piece for frame in frames for piece in encode(frame))
    decoder, got, start, turn = Decoder(1 << 20), [], 0, 0
    while start < len(data):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(data[start : start + size])
        start, turn = start + size, turn + 1
    assert [whole(frame) for frame in got] == frames


def test_byte_by_byte():
    frame = Frame(Kind.CALLS, 7, b"payload", ordinals=(1, 2))
    data = b"".join(encode(frame))
    decoder = Decoder(100)
    decoded_frames = [decoded for byte in data for decoded in decoder.feed(bytes([byte]))]
    assert [whole(decoded) for decoded in decoded_frames] == [frame]


def test_payload_in_pieces_is_the_payload():
    frame = Frame(Kind.ANSWERS, 7, ordinals=(3,))
    (got,) = Decoder(100).feed(b"".join(encode(frame, [b"ab", memoryview(b"cd"), b""])))
    assert bytes(got.payload) == b"abcd"
    assert got.ordinals == (3,)


@pytest.mark.parametrize("position", range(HEADER_BYTES))
def test_a_flipped_bit_of_the_header_is_found(position):
    data = bytearray(b"".join(encode(Frame(Kind.CALLS, 7, b"payload"))))
    data[position] ^= 0x10
    with pytest.raises(LinkError):
        Decoder(100).feed(bytes(data))


def test_a_payload_over_the_limit_is_refused_before_it_is_read():
    data = b"".join(encode(Frame(Kind.CALLS, 7, b"x" * 101)))
    with pytest.raises(LinkError):
        Decoder(100).feed(data[:HEADER_BYTES])
