"""Messages that aren't what they should be, or become far more than they are: each is refused in fixed words."""

from __future__ import annotations

import random

import grpc
import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.protobuf import prefix
from layerwire_server.gateway.service import FAMILIES
from tests.attacks.conftest import MIB
from tests.attacks.http2 import path_of
from tests.served import PATIENCE_SECONDS

INVALID = grpc.StatusCode.INVALID_ARGUMENT
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

GARBAGE = {
    "truncated": b"\x0a\x7f\x00",
    "no tag": b"\xff" * 20,
    "random": random.Random(1).randbytes(1000),
    "bad utf-8": b"\x0a\x02\xff\xfe",  # PutWeights' name, the service of a health check; else a message cut short
    "101 groups": b"\x7b" * 101,
    "20000 groups": b"\x7b" * 20_000,
    "101 groups, closed": b"\x7b" * 101 + b"\x7c" * 101,
}


def code_and_details(call, *args):
    """How an RPC fails."""
    with pytest.raises(grpc.RpcError) as caught:
        answers = call(*args, timeout=PATIENCE_SECONDS)
        for _ in answers if not isinstance(answers, bytes) else ():
            pass
    return caught.value.code(), caught.value.details()


@pytest.fixture
def channel(target):
    with grpc.insecure_channel(target.address) as connected:
        yield connected


def test_garbage_for_every_unary_method(target, channel, unharmed):
    with unharmed(target, 50 * MIB):
        for method in FAMILIES:
            for name, garbage in GARBAGE.items():
                code, details = code_and_details(channel.unary_unary(path_of(method)), garbage)
                assert (code, details) == (INVALID, f"the message is no {method}Request"), (method, name)


def test_garbage_for_a_method_without_fields_is_not_looked_at(target, channel, unharmed):
    with unharmed(target, 50 * MIB):
        answer = channel.unary_unary(path_of("GetServerInfo"))(GARBAGE["random"], timeout=PATIENCE_SECONDS)
        assert pb.GetServerInfoResponse.FromString(answer).version


def test_garbage_for_the_stream(target, channel, unharmed):
    with unharmed(target, 50 * MIB):
        for name, garbage in GARBAGE.items():
            code, details = code_and_details(channel.stream_stream(path_of("Stream")), iter([garbage]))
            assert code is INVALID, name
            assert details in {"the message is no StreamRequest", "stream: frame must be set to calls or cancel"}, name


@pytest.mark.parametrize("method", ["Check", "Watch", "reflection"])
def test_garbage_for_health_and_reflection(target, channel, method, unharmed):
    call = {
        "Check": channel.unary_unary(HEALTH + "Check"),
        "Watch": channel.unary_stream(HEALTH + "Watch"),
        "reflection": channel.stream_stream(REFLECTION),
    }[method]
    garbage = GARBAGE["truncated"]
    with unharmed(target, 50 * MIB):
        code, details = code_and_details(call, iter([garbage]) if method == "reflection" else garbage)
        name = "ServerReflectionRequest" if method == "reflection" else "HealthCheckRequest"
        assert (code, details) == (INVALID, f"the message is no {name}")


def field(number, body):
    """A length-delimited field."""
    return prefix(number, len(body)) + body


# 60 MiB each; parsed, packed numbers take sixteen times that, and calls far more
NUMBERS = b"\x01" * 60 * MIB
PAIRS = b"\x08\x01" * 30 * MIB
ROOM = "request must have at most 524288 bytes beside its tensors' data, and 1024 more a call"
AMPLIFIED = {
    "packed numbers": ("Pool", lambda: field(2, field(1, field(2, NUMBERS))), f"pool: {ROOM}"),
    "numbers": ("Pool", lambda: field(2, field(1, PAIRS)), f"pool: {ROOM}"),
    "packed axes": ("Pool", lambda: field(3, field(2, NUMBERS)), f"pool: {ROOM}"),
    "packed axes, to estimate": ("Estimate", lambda: field(1, field(3, field(2, NUMBERS))), f"estimate: {ROOM}"),
    "packed axes of weights": ("PutWeights", lambda: field(2, field(2, NUMBERS)), f"put_weights: {ROOM}"),
    "empty calls": ("Stream", lambda: field(1, b"\x0a\x00" * 30 * MIB), "stream: calls must be at most 4096 a message"),
    "numbers in calls": ("Stream", lambda: field(1, field(1, field(2, field(2, PAIRS[: 15 * 1024]))) * 4090),
                         f"stream: {ROOM}"),
    "a cancellation": ("Stream", lambda: field(2, field(1, NUMBERS)),
                       f"stream: cancel must be at most 65536 bytes a message, got {60 * MIB + 10}"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "make", "expected"), AMPLIFIED.values(), ids=AMPLIFIED)
def test_what_grows_when_parsed(target, channel, method, make, expected, unharmed):
    body = make()
    call = channel.stream_stream if method == "Stream" else channel.unary_unary
    # What the bytes themselves take: several times in gRPC's buffers and the gateway, once in the worker.
    with unharmed(target, 450 * MIB, worker_bytes=100 * MIB):
        for _ in range(3):
            error = code_and_details(call(path_of(method)), iter([body]) if method == "Stream" else body)
            assert error == (INVALID, expected)


def test_gzip_bomb(target, channel, unharmed):
    call = channel.unary_unary(path_of("Activate"))
    with unharmed(target, 250 * MIB), pytest.raises(grpc.RpcError) as caught:
        # A quarter of a MiB on the wire.
        call(bytes(256 * MIB), timeout=PATIENCE_SECONDS, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
