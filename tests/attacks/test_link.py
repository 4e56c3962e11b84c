"""Bytes on the link that no gateway or worker would send: nothing but LinkError comes of them, or the frames sent."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

import layerwire
from layerwire_server.link import HEADER_BYTES, Decoder, Family, Flag, Frame, Kind, LinkError, encode
from tests.attacks.conftest import MIB, serving
from tests.attacks.corrupting_worker import MAGIC
from tests.served import PATIENCE_SECONDS

SEED = 20261121
FRAMES = 10_000
MAX_PAYLOAD_BYTES = MIB


def random_frame(rng):
    return Frame(
        rng.choice(list(Kind)),
        rng.getrandbits(64),
        rng.randbytes(rng.choice([0, 1, 30, 300])),
        Flag(rng.randrange(8)),
        rng.choice(list(Family)),
        tuple(rng.randrange(1 << 16) for _ in range(rng.randrange(4))),
        rng.getrandbits(64),
        rng.random(),
        rng.random(),
    )


def bytes_of(frame):
    return b"".join(encode(frame))


def outcome(decoder, data, rng):
    """The frames that come of data fed in pieces, and whether LinkError ended it."""
    frames, start = [], 0
    while start < len(data):
        size = rng.choice([1, HEADER_BYTES - 1, 100, 5000])
        try:
            frames += decoder.feed(data[start : start + size])
        except LinkError:
            return frames, True
        start += size
    return [frame._replace(payload=bytes(frame.payload)) for frame in frames], False


def test_random_bytes_are_no_frames():
    rng = random.Random(SEED)
    for _ in range(FRAMES):
        size = rng.randrange(200)
        frames, refused = outcome(Decoder(MAX_PAYLOAD_BYTES), rng.randbytes(size), rng)
        assert frames == []
        assert refused == (size >= HEADER_BYTES)


def test_truncated_frames_are_awaited():
    rng = random.Random(SEED)
    for _ in range(FRAMES):
        whole, cut = random_frame(rng), bytes_of(random_frame(rng))
        end = rng.randrange(len(cut))
        decoder = Decoder(MAX_PAYLOAD_BYTES)
        assert outcome(decoder, bytes_of(whole) + cut[:end], rng) == ([whole], False)
        assert len(decoder.feed(cut[end:])) == 1


def test_flipped_bits_of_headers_are_found_and_those_of_payloads_stay_where_they_are():
    rng = random.Random(SEED)
    for _ in range(FRAMES):
        sent = random_frame(rng)
        data = bytearray(bytes_of(sent))
        position = rng.randrange(len(data))
        data[position] ^= 1 << rng.randrange(8)
        frames, refused = outcome(Decoder(MAX_PAYLOAD_BYTES), bytes(data), rng)
        if position < HEADER_BYTES:
            assert (frames, refused) == ([], True)
        else:
            assert not refused
            assert [frame._replace(payload=b"", ordinals=()) for frame in frames] == [
                sent._replace(payload=b"", ordinals=())
            ]
            assert len(frames[0].payload) == len(sent.payload)
            assert len(frames[0].ordinals) == len(sent.ordinals)


@pytest.mark.parametrize("excess", [1, MAX_PAYLOAD_BYTES, 1 << 40, (1 << 62) - 1])
def test_no_length_makes_the_decoder_reserve_memory(excess):
    data = bytearray(bytes_of(Frame(Kind.CALLS, 7)))
    forged = with_length(data, MAX_PAYLOAD_BYTES + excess)
    tracemalloc.start()
    try:
        decoder = Decoder(MAX_PAYLOAD_BYTES)
        with pytest.raises(LinkError):
            decoder.feed(forged)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def with_length(data, length):
    """A header with a right checksum and this length."""
    fields = bytes(data[:12]) + struct.pack("<Q", length) + bytes(data[20 : HEADER_BYTES - 4])
    return fields + struct.pack("<I", zlib.crc32(fields))


def test_worker_whose_link_is_damaged_is_replaced_and_its_calls_are_answered(start):
    server = start(modules={"worker": "tests.attacks.corrupting_worker"})
    before = server.processes()
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS, retries=0) as lw:
        values = [1.0, 2.0, MAGIC, 3.0]
        futures = [lw.submit.relu(np.array([value], np.float32)) for value in values]
        assert [float(future.result(PATIENCE_SECONDS)[0]) for future in futures] == values
    after = server.processes()
    roles = {role: pid for pid, role in before.items()}
    assert {role for pid, role in after.items() if pid not in before} == {"worker"}
    assert {roles["supervisor"], roles["gateway"]} <= set(after)
    assert serving(server)
