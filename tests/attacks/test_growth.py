"""Calls by the thousand leave nothing behind in the gateway: answered, refused, cancelled or expired."""

from __future__ import annotations

import contextlib
from collections import deque

import grpc
import pytest

from tests.attacks.conftest import MIB, resident_bytes
from tests.attacks.http2 import path_of
from tests.attacks.messages import relu
from tests.served import PATIENCE_SECONDS

CALLS = 3000
OK, BAD = relu(0, 1.0).activate.SerializeToString(), b"\x0a\x7f"
CALL_BYTES = 1500  # what one may leave; grpcio itself leaves 0.2 to 0.7 kB where a call is cancelled or expires


def answered(method):
    return method.future(OK, timeout=PATIENCE_SECONDS)


def refused(method):
    return method.future(BAD, timeout=PATIENCE_SECONDS)


def cancelled(method):
    future = method.future(OK, timeout=PATIENCE_SECONDS)
    future.cancel()
    return future


def expired(method):
    return method.future(OK, timeout=0.0005)


@pytest.fixture
def method(target):
    with grpc.insecure_channel(target.address) as channel:
        yield channel.unary_unary(path_of("Activate"))


@pytest.fixture
def gateway(target):
    (pid,) = target.pids("gateway")
    return pid


def run(call, method, count):
    """So many calls, 50 at once."""
    waiting = deque()
    for _ in range(count):
        waiting.append(call(method))
        if len(waiting) == 50:
            wait(waiting.popleft())
    for future in waiting:
        wait(future)


def wait(future):
    with contextlib.suppress(grpc.FutureCancelledError):
        future.exception()


@pytest.mark.parametrize(("call", "warm_up"), [(answered, 1000), (refused, 1000), (cancelled, 6000), (expired, 6000)])
def test_calls_leave_nothing(method, gateway, call, warm_up):
    run(call, method, warm_up)
    before = resident_bytes(gateway)
    run(call, method, CALLS)
    growth = resident_bytes(gateway) - before
    print(f"{growth / CALLS:.0f} bytes a call")
    assert growth < CALLS * CALL_BYTES


def test_large_refused_requests_are_let_go(method, gateway):
    before = resident_bytes(gateway)
    for _ in range(60):
        wait(method.future(b"\xff" * 4 * MIB, timeout=PATIENCE_SECONDS))
    growth = resident_bytes(gateway) - before
    print(f"{growth / MIB:.0f} MiB of 240")
    assert growth < 100 * MIB
