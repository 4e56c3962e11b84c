"""What is over a limit, or would be late, is refused at once: status, words, time to come back, and metric."""

from __future__ import annotations

import os
import signal
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2

import layerwire
from layerwire import errors
from layerwire.errors import from_status
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, tensor_pb2
from tests.attacks.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Flooder, frame, header_block, message
from tests.served import PATIENCE_SECONDS, Server
from tests.through_server.slow_worker import HELD, SLOW, SLOW_SECONDS

KIB = 1024


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(*flags: str) -> Server:
        servers.append(Server(tmp_path, *flags, modules={"worker": "tests.through_server.slow_worker"}))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def stub_of() -> Iterator[Callable[[Server], Any]]:
    """Stubs with a connection of their own."""
    channels: list[grpc.Channel] = []

    def make(server: Server) -> layerwire_pb2_grpc.LayerwireServiceStub:
        channels.append(grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]))
        return layerwire_pb2_grpc.LayerwireServiceStub(channels[-1])

    yield make
    for channel in channels:
        channel.close()


def relu(*values: float, shape: tuple[int, ...] | None = None) -> pb.ActivateRequest:
    data = struct.pack(f"<{len(values)}f", *values)
    request = pb.ActivateRequest()
    request.operator.relu.SetInParent()
    request.input.CopyFrom(
        tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape or (1, len(values)), data=data)
    )
    return request


def refusal(rpc: Callable[[], object]) -> tuple[grpc.RpcError, errors.LayerwireError]:
    """The status of an RPC that is refused, and the error that its details make."""
    with pytest.raises(grpc.RpcError) as caught:
        rpc()
    (details,) = (
        value for key, value in caught.value.trailing_metadata() if key == "grpc-status-details-bin"
    )  # fmt: skip
    return caught.value, from_status(status_pb2.Status.FromString(details))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def rejections(server: Server, reason: str) -> float:
    """Of all processes; they tell the supervisor several times a second."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=PATIENCE_SECONDS) as page:
        lines = page.read().decode().splitlines()
    samples = [line for line in lines if line.startswith("layerwire_rejected_total{") and f'reason="{reason}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in samples)


def running(server: Server, calls: int) -> None:
    """Returns when the worker has so many calls."""
    until(lambda: server.metric("layerwire_calls_in_flight") == calls)


def test_requests_beyond_the_limit(start, stub_of, tmp_path):
    server = start("--max-requests-in-flight", "2")
    stubs = [stub_of(server) for _ in range(3)]
    first = stubs[0].Activate.future(relu(HELD), timeout=PATIENCE_SECONDS)
    running(server, 1)
    error, details = refusal(lambda: stubs[0].Activate(relu(1.0), timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "as many requests of this connection as its --max-requests-in-flight of 2 allows" in error.details()
    assert 0 < details.retry_after_seconds <= 5
    second = stubs[1].Activate.future(relu(2.0), timeout=PATIENCE_SECONDS)
    running(server, 2)
    error, details = refusal(lambda: stubs[2].Activate(relu(3.0), timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "as many requests as its --max-requests-in-flight of 2 allows" in error.details()
    assert 0 < details.retry_after_seconds <= 5
    until(lambda: rejections(server, "requests_in_flight") == 2)
    (tmp_path / "mark").touch()
    assert first.result().output.data == struct.pack("<f", HELD)
    assert second.result().output.data == struct.pack("<f", 2.0)
    assert stubs[2].Activate(relu(3.0), timeout=PATIENCE_SECONDS).output.data == struct.pack("<f", 3.0)


def test_a_unary_request_that_a_worker_would_read_too_late(start, stub_of, tmp_path):
    server = start()
    stub = stub_of(server)
    held = stub.Activate.future(relu(HELD), timeout=PATIENCE_SECONDS)
    running(server, 1)
    (worker,) = server.pids("worker")
    start_time = time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    wrong = stub.Activate.future(relu(1.0, shape=(5, 5)), timeout=PATIENCE_SECONDS)
    time.sleep(3.0)  # what it waits is what the gateway learns
    os.kill(worker, signal.SIGCONT)
    assert wrong.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
    error, details = refusal(lambda: stub.Activate(relu(1.0), timeout=2.0))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "s behind, too much with" in error.details()
    assert 0 < details.retry_after_seconds <= time.monotonic() - start_time
    until(lambda: rejections(server, "queue_seconds") == 1)
    (tmp_path / "mark").touch()
    assert held.result().output.data == struct.pack("<f", HELD)


def test_a_call_of_a_stream_that_would_wait_too_long(start):
    server = start()
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS, retries=0) as lw:
        slow = np.full((1, 1), SLOW, np.float32)
        for _ in range(3):  # fewer predict nothing
            lw.relu(slow)
        refused = None
        while refused is None:  # a busy machine may send it so late that it is admitted
            ahead = lw.submit.relu(slow)
            time.sleep(0.05)  # else they may share a batch
            waiting = lw.submit.relu(np.zeros((1, 1), np.float32))  # one is let in whatever is predicted
            try:
                lw.relu(np.ones((1, 1), np.float32), timeout=0.9 * SLOW_SECONDS)
            except errors.ResourceExhaustedError as error:
                refused = error
            except errors.DeadlineExceededError:
                pass
            assert (ahead.result(PATIENCE_SECONDS), waiting.result(PATIENCE_SECONDS)) == (SLOW, 0.0)
        assert "relu: what waits already takes too long for the call's deadline" in str(refused)
        assert 0 < refused.retry_after_seconds <= 5
        until(lambda: rejections(server, "queue_seconds") >= 1)
        assert lw.relu(np.ones((1, 1), np.float32)) == 1.0


def test_requests_whose_time_is_up_when_they_are_read_never_run(start, stub_of):
    server = start()
    count = 50
    block = header_block("Activate", timeout="1n")
    body = message(relu(1.0).SerializeToString())
    client = Flooder(server.address)
    client.pour(
        b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, body)
            for stream in range(1, 2 * count, 2)
        )
    )
    assert client.listen(kind=HEADERS, count=count)  # each is answered
    client.close()
    before = server.metric("layerwire_calls_total")
    assert stub_of(server).Activate(relu(1.0), timeout=PATIENCE_SECONDS).output.data == struct.pack("<f", 1.0)
    until(lambda: server.metric("layerwire_calls_total") == before + 1)
    assert before == 0


def test_answers_that_nobody_reads(start, stub_of):
    """A client that opens no window takes no room from others' answers but half."""
    server = start("--max-message-bytes", "1MiB", "--max-bytes-in-flight", "1MiB")
    request = pb.ActivateRequest()
    values = np.ones(40 * KIB, np.float32)  # 160 KiB
    request.CopyFrom(relu(*values.tolist()))
    body = message(request.SerializeToString())
    client = Flooder(server.address, initial_window_bytes=0)
    for stream in (1, 3, 5):
        client.pour(frame(HEADERS, END_HEADERS, stream, header_block("Activate")))
        for start_byte in range(0, len(body), 16 * KIB):
            part = body[start_byte : start_byte + 16 * KIB]
            is_last = start_byte + 16 * KIB >= len(body)
            client.pour(frame(DATA, END_STREAM * is_last, stream, part))
    stub = stub_of(server)
    until(lambda: server.metric("layerwire_calls_total") >= 3)
    error, details = refusal(lambda: stub.Activate(request, timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "answers not read yet fill half of the server's --max-bytes-in-flight of 1048576" in error.details()
    assert 0 < details.retry_after_seconds <= 5
    until(lambda: rejections(server, "unread_answers") >= 1)
    client.close()

    def answered() -> bool:
        try:
            return len(stub.Activate(request, timeout=PATIENCE_SECONDS).output.data) == values.nbytes
        except grpc.RpcError:
            return False

    until(answered)
