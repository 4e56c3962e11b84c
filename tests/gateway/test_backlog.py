"""Frames that wait for a worker: how long, and which of their calls are given up meanwhile."""

from __future__ import annotations

import grpc
import pytest

from layerwire.errors import DeadlineExceededError, UnavailableError
from layerwire_server.link import Family, Flag, Kind
from tests.gateway.frames import (
    answers,
    ask,
    calls,
    cancel,
    group,
    group_message,
    relu,
    statuses,
    up,
)


def test_frames_wait_no_longer_than_they_may(router, metrics):
    early, late = ask(router, arrived=0.0), ask(router, arrived=5.0)
    router.expire(9.9)
    assert (early.error, late.error) == (None, None)
    router.expire(10.0)
    assert isinstance(early.error, UnavailableError)
    assert early.error.retry_after_seconds > 0
    assert late.error is None
    assert metrics.counter("layerwire_rejected_total", reason="unavailable").value == 1
    worker = up(router, 11.0)
    assert [frame.frame for frame in worker.take()] == [late.number]


def test_a_new_wait_is_counted_from_the_death(router):
    one = up(router)
    pending = ask(router, arrived=0.0)
    router.down(one, 100.0)
    router.expire(109.0)
    assert pending.error is None
    router.expire(110.0)
    assert pending.error.code is grpc.StatusCode.UNAVAILABLE


def test_cancelled_calls_of_a_waiting_frame_are_answered_and_not_run(router):
    frames = [ask(router, payload=calls({1: relu(), 2: relu(), 3: relu()})), ask(router, payload=calls({4: relu()}))]
    router.cancel_calls(frames, 0, cancel(2, 4, 77))
    assert [statuses(pending) for pending in frames] == [{2: "CANCELLED"}, {4: "CANCELLED"}]
    assert [pending.answers[-1][1] for pending in frames] == [False, True]
    router.cancel_calls(frames[:1], 0, cancel(2))
    assert len(frames[0].answers) == 1
    (frame,) = up(router).take()
    assert (frame.frame, frame.ordinals, frame.flags) == (frames[0].number, (1,), Flag.NONE)


def test_calls_of_a_waiting_frame_expire_at_their_time(router, metrics):
    requests = {1: relu(timeout_seconds=2.0), 2: relu(), 3: relu(timeout_seconds=1.0), 4: relu(timeout_seconds=9.0)}
    pending = ask(router, payload=calls(requests), arrived=50.0)
    router.expire(50.9)
    assert statuses(pending) == {}
    router.expire(51.0)
    assert statuses(pending) == {3: "DEADLINE_EXCEEDED"}
    router.expire(52.5)
    assert statuses(pending) == {1: "DEADLINE_EXCEEDED", 3: "DEADLINE_EXCEEDED"}
    assert metrics.counter("layerwire_rejected_total", reason="unavailable").value == 2
    (frame,) = up(router).take()
    assert frame.ordinals == (0, 2)


def test_calls_in_groups_are_given_up_one_by_one(router):
    payload = group_message(group([2, 3], b"aabb"), group([4, 2], b"ccdd"), requests={1: relu()})
    pending = ask(router, payload=payload)
    router.cancel_calls([pending], 0, cancel(2, 4, 77))
    assert statuses(pending) == {2: "CANCELLED", 4: "CANCELLED"}
    (frame,) = up(router).take()
    assert frame.ordinals == (1, 3, 4)  # id 2 stands in both groups
    assert frame.payload == payload


def test_a_frame_whose_groups_are_given_up_is_done(router):
    pending = ask(router, payload=group_message(group([2, 3], b"aabb")))
    router.cancel_calls([pending], 0, cancel(3))
    router.cancel_calls([pending], 0, cancel(2))
    assert [last for _, last in pending.answers] == [False, True]
    assert up(router).take() == []


def test_a_group_expires_as_a_whole_at_its_time(router, metrics):
    groups = [group([2, 3], b"aabb", request=relu(timeout_seconds=1.0)), group([4], b"cc")]
    pending = ask(router, payload=group_message(*groups, requests={1: relu(timeout_seconds=2.0)}), arrived=50.0)
    router.expire(50.9)
    assert statuses(pending) == {}
    router.expire(51.0)
    assert statuses(pending) == {2: "DEADLINE_EXCEEDED", 3: "DEADLINE_EXCEEDED"}
    router.expire(52.0)
    assert statuses(pending).keys() == {1, 2, 3}
    assert metrics.counter("layerwire_rejected_total", reason="unavailable").value == 3
    (frame,) = up(router).take()
    assert frame.ordinals == (0, 1, 2)


def test_answered_calls_of_a_waiting_frame_are_not_answered_again(router):
    worker = up(router)
    pending = ask(router, payload=calls({1: relu(timeout_seconds=1.0), 2: relu(timeout_seconds=2.0)}))
    router.deliver(worker, answers(pending, 0, payload=b""))
    router.down(worker, 0.5)
    router.cancel_calls([pending], 0, cancel(1))
    router.expire(3.0)
    assert statuses(pending) == {2: "DEADLINE_EXCEEDED"}
    assert [last for _, last in pending.answers] == [False, True]
    assert up(router).take() == []


def test_a_waiting_unary_request_expires_at_its_time(router, metrics):
    payload = relu(timeout_seconds=1.0).SerializeToString()
    pending = ask(router, kind=Kind.UNARY, payload=payload, family=Family.ACTIVATE, arrived=5.0)
    router.expire(5.9)
    assert pending.error is None
    router.expire(6.0)
    assert isinstance(pending.error, DeadlineExceededError)
    assert up(router).take() == []
    assert metrics.counter("layerwire_rejected_total", reason="unavailable").value == 1


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x12\x05\x0a\xff", b"\x0a\x03\x0a\x01\x07", b"\xff" * 20, b"\x0a\x04\x12\x02\x12\x09", b"\x0a\x02\x12\x00"],
)
def test_messages_that_cannot_be_followed_wait_and_go_on(router, payload):
    pending = ask(router, payload=payload)
    router.cancel_calls([pending], 0, payload)
    router.expire(9.0)
    assert pending.answers == []
    assert [frame.ordinals for frame in up(router).take()] == [()]
