"""Streams of clients that break the rules: they don't read, write garbage, or ask for too much at once."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.arrays import to_numpy
from tests.attacks.conftest import MIB
from tests.attacks.http2 import GOAWAY, HEADERS, RST_STREAM, path_of
from tests.attacks.messages import blow_up, open_stream, relu, requests, stream_request
from tests.served import PATIENCE_SECONDS

INVALID = grpc.StatusCode.INVALID_ARGUMENT
# A server with little room, whose gateway ends streams that aren't read after half a second instead of a minute.
SMALL = (
    *("--max-bytes-in-flight", "64MiB", "--max-queue-bytes", "64MiB", "--max-stream-bytes", "16MiB"),
    *("--max-message-bytes", "16MiB", "--max-output-bytes", "8MiB"),
)


@pytest.fixture
def small(start):
    return start(*SMALL, modules={"gateway": "tests.attacks.impatient_gateway"})


@pytest.fixture
def stream(target):
    with grpc.insecure_channel(target.address) as channel:
        yield channel.stream_stream(path_of("Stream"))


def test_calls_whose_answers_nobody_reads_are_taken_no_further(target, stream, unharmed):
    body = stream_request(*[relu(1, *[1.0] * 4096)] * 64)  # 1 MiB
    taken = threading.Semaphore(0)

    def bodies():
        for _ in range(600):
            yield body
            taken.release()

    with unharmed(target, 500 * MIB):  # --max-stream-bytes is 128 MiB; what windows hold and copies come on top
        call = stream(bodies(), timeout=PATIENCE_SECONDS)
        count = 0
        while taken.acquire(timeout=PATIENCE_SECONDS if count <= 100 else 1):
            count += 1
        call.cancel()
    assert 100 < count < 300


def test_bytes_beyond_the_window_end_their_stream(target, flooder, unharmed):
    data = open_stream(*[bytes(MIB)] * 100)
    with unharmed(target, 100 * MIB):
        attacker = flooder(target.address)
        attacker.pour(data)
        attacker.listen(kind=RST_STREAM)
        assert attacker.received[RST_STREAM] or attacker.received[GOAWAY], attacker.received


def test_unread_answers_of_streams_leave_others_their_room(small, flooder, unharmed):
    blown = [pb.Call(id=number, pool=blow_up(4 * MIB)) for number in range(16)]
    data = open_stream(stream_request(*blown))
    with unharmed(small, 400 * MIB):  # of 8 times 64 MiB
        for attacker in [flooder(small.address, 0) for _ in range(8)]:
            attacker.pour(data)
            assert attacker.listen(kind=HEADERS)


def test_unread_answers_of_unary_calls_leave_others_their_room(small, flooder, unharmed):
    data = requests("Pool", blow_up(4 * MIB).SerializeToString(), 32)
    with unharmed(small, 300 * MIB):  # of 8 times 128 MiB
        for attacker in [flooder(small.address, 0) for _ in range(8)]:
            attacker.pour(data)
            assert attacker.listen(kind=HEADERS, count=32)


def test_unread_answers_of_unary_calls_in_large(target, flooder, unharmed):
    with unharmed(target, 500 * MIB):  # twice what is asked for; --max-bytes-in-flight is 1 GiB
        attacker = flooder(target.address, 0)
        attacker.pour(requests("Pool", blow_up(4 * MIB).SerializeToString(), 50))
        assert attacker.listen(kind=HEADERS, count=50)


@pytest.mark.parametrize("garbage", [b"\x00", b"\x1a\x00", b"\xff" * 100], ids=["zero", "another field", "no tag"])
def test_garbage_ends_its_stream_alone(target, stream, garbage, unharmed):
    with unharmed(target, 50 * MIB), pytest.raises(grpc.RpcError) as caught:
        list(stream(iter([garbage]), timeout=PATIENCE_SECONDS))
    assert caught.value.code() is INVALID
    assert caught.value.details() == "stream: frame must be set to calls or cancel"


def test_4097_calls_are_one_too_many(target, stream, unharmed):
    body = stream_request(*[relu(number, -1.0) for number in range(4097)])
    with unharmed(target, 100 * MIB), pytest.raises(grpc.RpcError) as caught:
        list(stream(iter([body]), timeout=PATIENCE_SECONDS))
    assert caught.value.code() is INVALID
    assert caught.value.details() == "stream: calls must be at most 4096 a message, got 4097"


def test_duplicated_ids_get_an_answer_each(target, stream, unharmed):
    values = [float(number) for number in range(100)]
    body = stream_request(*[relu(7, value) for value in values])
    with unharmed(target, 50 * MIB):
        answers = [
            answer
            for got in stream(iter([body]), timeout=PATIENCE_SECONDS)
            for answer in pb.StreamResponse.FromString(got).answers
        ]
    assert {answer.id for answer in answers} == {7}
    got = np.sort(np.concatenate([to_numpy(answer.activate.output) for answer in answers]))
    np.testing.assert_array_equal(got, np.array(values, np.float32))
