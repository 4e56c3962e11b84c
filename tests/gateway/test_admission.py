"""What a gateway takes in: the limits, the refusals, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from layerwire.errors import LayerwireError, ResourceExhaustedError
from layerwire_server.config import load
from layerwire_server.gateway.admission import Admission, DrainRate, max_received_bytes
from layerwire_server.metrics import REJECTIONS, Metrics

MIB = 1024**2


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def admission(metrics):
    settings = load({"max_message_bytes": 2 * MIB, "max_output_bytes": MIB, "max_bytes_in_flight": 4 * MIB,
                     "max_requests_in_flight": 3})  # fmt: skip
    return Admission(settings, metrics)


def test_requests_beyond_the_number_are_refused(admission, metrics):
    for _ in range(3):
        admission.admit(1, 0.0)
    with pytest.raises(ResourceExhaustedError, match=r"--max-requests-in-flight of 3") as caught:
        admission.admit(1, 0.0)
    assert caught.value.retry_after_seconds > 0
    assert metrics.counter("layerwire_rejected_total", reason="requests_in_flight").value == 1
    admission.leave(1, 0.0)
    admission.admit(1, 0.0)


def test_requests_beyond_the_bytes_are_refused(admission, metrics):
    admission.admit(2 * MIB, 0.0)
    admission.admit(MIB, 0.0)
    with pytest.raises(ResourceExhaustedError, match=rf"--max-bytes-in-flight of {4 * MIB}"):
        admission.admit(MIB + 1, 0.0)
    admission.admit(MIB, 0.0)
    assert (admission.requests, admission.nbytes, admission.full) == (3, 4 * MIB, True)
    assert metrics.counter("layerwire_rejected_total", reason="bytes_in_flight").value == 1


def test_a_message_over_the_limit_is_refused_for_good(admission, metrics):
    with pytest.raises(ResourceExhaustedError, match="--max-message-bytes") as caught:
        admission.admit(2 * MIB + 1, 0.0)
    assert caught.value.retry_after_seconds is None
    assert metrics.counter("layerwire_rejected_total", reason="message_bytes").value == 1


@pytest.mark.parametrize(
    ("limit", "received"),
    [(MIB, MIB * 5 // 4), (2**31 - 2 * MIB, 2**31 - 1)],
    ids=["a quarter more", "what gRPC takes"],
)
def test_grpc_takes_in_what_is_somewhat_too_large(limit, received):
    assert max_received_bytes(limit) == received


def test_every_reason_is_there_before_it_is_met(admission, metrics):
    values = {tuple(labels): value for labels, value in metrics.snapshot()["layerwire_rejected_total"]}
    assert values == {(reason,): 0 for reason in REJECTIONS["gateway"]}


def test_the_books_are_even_in_the_end(admission):
    admission.admit(10, 0.0)
    admission.hold(5)
    admission.leave(10, 1.0)
    admission.release(5, 1.0)
    assert (admission.requests, admission.nbytes) == (0, 0)


async def test_streams_wait_for_room_and_all_go_on(admission):
    await admission.room()
    admission.hold(5 * MIB)
    waiting = [asyncio.create_task(admission.room()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    admission.release(MIB, 0.0)
    assert not any(task.done() for task in waiting[1:])
    admission.release(1, 0.0)
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 10)


def test_the_wait_that_is_told_follows_the_rate():
    rate = DrainRate()
    assert rate.seconds_for(1, 0.0) == 5.0
    now = 0.0
    for _ in range(1000):
        now += 0.01
        rate.add(10, now)
    assert 0.05 < rate.seconds_for(100, now) < 0.15
    assert rate.seconds_for(1, now) == 0.01
    assert rate.seconds_for(100, now + 30) == 5.0


def test_a_connection_has_half_of_what_others_leave(metrics):
    admission = Admission(load({"max_requests_in_flight": 8}), metrics)
    greedy, other = (admission.account(f"ipv4:127.0.0.1:{port}") for port in (1, 2))
    for _ in range(4):
        admission.admit(1, 0.0, greedy)
    with pytest.raises(
        ResourceExhaustedError, match=r"requests of this connection as its --max-requests-in-flight of 8"
    ):
        admission.admit(1, 0.0, greedy)
    for _ in range(2):
        admission.admit(1, 0.0, other)
    with pytest.raises(ResourceExhaustedError):
        admission.admit(1, 0.0, other)
    admission.admit(1, 0.0, admission.account("ipv4:127.0.0.1:3"))
    assert metrics.counter("layerwire_rejected_total", reason="requests_in_flight").value == 2
    admission.leave(1, 0.0, greedy)
    admission.leave(1, 0.0, greedy)
    admission.admit(1, 0.0, other)


def test_a_connection_has_half_of_the_bytes_that_others_leave(admission):
    admission = Admission(load({"max_message_bytes": 4 * MIB, "max_output_bytes": MIB, "max_bytes_in_flight": 8 * MIB}),
                          Metrics())  # fmt: skip
    greedy = admission.account("one")
    admission.admit(3 * MIB, 0.0, greedy)
    with pytest.raises(ResourceExhaustedError, match=r"bytes of this connection as its --max-bytes-in-flight"):
        admission.admit(3 * MIB, 0.0, greedy)
    admission.admit(4 * MIB, 0.0, admission.account("two"))
    assert admission.nbytes == 7 * MIB


def test_a_connection_without_requests_gets_in_while_there_is_room(admission):
    for port in range(3):
        admission.admit(1, 0.0, admission.account(str(port)))


def test_accounts_are_kept_while_there_are_requests(admission):
    account = admission.account("one")
    admission.admit(1, 0.0, account)
    assert admission.account("one") is account
    admission.leave(1, 0.0, account)
    assert admission.account("one") is not account
    assert admission.account("one").number == account.number
    assert admission._accounts == {}


@pytest.mark.parametrize(
    ("left", "wait", "delay", "code"),
    [
        (1.0, 0.0, 0.0, None),
        (1.0, 0.5, 0.0, None),
        (1.0, 0.51, 0.0, "RESOURCE_EXHAUSTED"),
        (0.6, 0.0, 0.4, None),
        (0.4, 0.0, 0.6, "RESOURCE_EXHAUSTED"),
        (0.6, 0.2, 0.4, "RESOURCE_EXHAUSTED"),
        (0.0, 0.0, 0.0, "DEADLINE_EXCEEDED"),
    ],
)
def test_requests_that_cannot_be_answered_in_time_are_refused(admission, metrics, left, wait, delay, code):
    if code is None:
        admission.check_deadline(left, wait, delay)
        return
    with pytest.raises(LayerwireError) as caught:
        admission.check_deadline(left, wait, delay)
    assert caught.value.code.name == code
    is_rejected = code == "RESOURCE_EXHAUSTED"
    assert (caught.value.retry_after_seconds is not None) == is_rejected
    assert metrics.counter("layerwire_rejected_total", reason="queue_seconds").value == is_rejected
