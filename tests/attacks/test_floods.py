"""HTTP/2 frames in numbers that no client needs: resets, unfinished requests, pings, settings, headers, silence."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import grpc
import numpy as np
import pytest

import layerwire
from tests.attacks.conftest import MIB
from tests.attacks.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    header_block,
    path_of,
)
from tests.served import PATIENCE_SECONDS

MAX_CONCURRENT_STREAMS = 1000  # --max-concurrent-streams
CANCEL = struct.pack(">I", 8)
A_SETTING = struct.pack(">HI", 4, 65535)


@pytest.mark.parametrize("method", ["Activate", "Stream"])
def test_rapid_reset(target, flooder, method, unharmed):
    block = header_block(method)
    data = b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, CANCEL)
        for stream in range(1, 2 * 50_000, 2)
    )
    with unharmed(target, 150 * MIB):
        assert flooder(target.address).pour(data) > len(data) / 10
        for _ in range(20):  # nor do clients notice that come in the midst of it
            with layerwire.Client(target.address, timeout=PATIENCE_SECONDS, retries=0) as lw:
                assert lw.relu(np.float32(-1.0)) == 0


def test_unfinished_requests_are_limited_and_hold_nothing(target, flooder, unharmed):
    count = 2 * MAX_CONCURRENT_STREAMS
    block, part = header_block("Activate"), struct.pack(">BI", 0, 4 * MIB) + b"x"
    data = b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, part) for stream in range(1, 2 * count, 2)
    )
    with unharmed(target, 50 * MIB):
        attacker = flooder(target.address)
        assert attacker.pour(data) == len(data)
        assert attacker.listen(kind=RST_STREAM, count=count - MAX_CONCURRENT_STREAMS)


def test_pings_end_the_connection(target, flooder, unharmed):
    with unharmed(target, 50 * MIB):
        attacker = flooder(target.address)
        attacker.pour(frame(PING, 0, 0, b"12345678") * 100_000)
        assert attacker.listen(kind=GOAWAY)
        assert attacker.last_words == b"too_many_pings"


def test_settings(target, flooder, unharmed):
    count = 50_000
    with unharmed(target, 50 * MIB):
        attacker = flooder(target.address)
        attacker.pour(frame(SETTINGS, 0, 0, A_SETTING) * count)
        assert attacker.listen(kind=SETTINGS, count=count)  # each is acknowledged; that takes the server no memory


def test_settings_whose_acknowledgements_nobody_reads(target, flooder, unharmed):
    data = frame(SETTINGS, 0, 0, A_SETTING) * 2_000_000
    with unharmed(target, 100 * MIB):
        attacker = flooder(target.address)
        assert attacker.pour(data, 3, read=False) < len(data)


def test_endless_headers_end_their_stream(target, flooder, unharmed):
    name, value = b"\x00\x03abc", b"x" * 10_000
    field = name + b"\x7f" + bytes([(10_000 - 127) & 0x7F | 0x80, (10_000 - 127) >> 7]) + value  # RFC 7541, 5.1
    data = frame(HEADERS, 0, 1, header_block("Activate")) + frame(CONTINUATION, 0, 1, field) * 2000
    with unharmed(target, 150 * MIB):
        attacker = flooder(target.address)
        attacker.pour(data)
        assert attacker.listen(kind=RST_STREAM)


def test_silent_connections_are_closed(target, unharmed):
    host, port = target.address.rsplit(":", 1)
    with unharmed(target, 50 * MIB), contextlib.ExitStack() as stack:
        begun = time.monotonic()
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), PATIENCE_SECONDS)) for _ in range(100)
        ]
        for number, one in enumerate(silent):
            one.sendall(PREFACE[: number % 10])
        for one in silent:
            with contextlib.suppress(ConnectionResetError):
                while one.recv(4096):
                    pass
        assert 3 < time.monotonic() - begun < 60  # the handshake has 5 s, and would have 120


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((("x-large", "y" * 20_000),), id="20 kB"),
        pytest.param((("x-large", "y" * MIB),), id="1 MiB"),
        pytest.param(tuple((f"x-{number}", "y") for number in range(5000)), id="5000 keys"),
    ],
)
def test_huge_metadata_is_refused(target, metadata, unharmed):
    with unharmed(target, 50 * MIB), grpc.insecure_channel(target.address) as channel:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path_of("Activate"))(b"", timeout=PATIENCE_SECONDS, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
