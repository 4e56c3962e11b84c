"""The router against links that are lists: where frames go, and where their answers go."""

from __future__ import annotations

import pytest

from layerwire_server.link import Frame, Kind
from tests.gateway.frames import (
    answers,
    ask,
    up,
)


def test_a_frame_goes_out_as_it_came_in_and_its_answers_back(router):
    worker = up(router)
    pending = ask(router, stream=7, arrived=3.0)
    (frame,) = worker.take()
    assert frame == Frame(Kind.CALLS, pending.number, b"payload", stream=7, arrived=3.0)
    router.deliver(worker, answers(pending, 0, payload=b"a"))
    router.deliver(worker, answers(pending, 1, last=True, payload=b"b"))
    assert pending.answers == [(b"a", False), (b"b", True)]


def test_the_last_answers_need_not_say_to_which_calls(router, metrics):
    worker = up(router)
    pending = ask(router)
    router.deliver(worker, answers(pending, 2, payload=b"a"))
    router.deliver(worker, answers(pending, last=True, payload=b"all others"))
    assert pending.answers == [(b"a", False), (b"all others", True)]
    router.deliver(worker, answers(pending, last=True, payload=b"again"))
    assert len(pending.answers) == 2
    assert metrics.counter("layerwire_dropped_answers_total").value == 1
    router.down(worker, 1.0)
    assert up(router).take() == []


def test_the_least_loaded_worker_gets_the_next_frame(router):
    workers = [up(router), up(router)]
    ask(router, payload=b"x" * 100_000)
    ask(router)
    ask(router)
    assert sorted(len(worker.frames) for worker in workers) == [1, 2]
    assert max(len(worker.frames[0].payload) for worker in workers if len(worker.frames) == 1) == 100_000


def test_load_is_given_back_when_a_frame_is_answered(router):
    one, other = up(router), up(router)
    for _ in range(20):
        pending = ask(router, payload=b"x" * 1000)
        worker = one if one.take() else other
        other.take()
        router.deliver(worker, answers(pending, 0, last=True))
    big = [ask(router), ask(router)]
    assert len(one.frames) == len(other.frames) == 1
    assert {pending.number for pending in big} == {one.frames[0].frame, other.frames[0].frame}


def test_late_answers_are_dropped(router, metrics):
    one, other = up(router), up(router)
    pending = ask(router)
    holder, heir = (one, other) if one.take() else (other, one)
    router.down(holder, 1.0)
    heir.take()
    router.deliver(holder, answers(pending, 0, last=True, payload=b"late"))
    assert pending.answers == []
    router.deliver(heir, answers(pending, 0, last=True, payload=b"right"))
    router.deliver(heir, answers(pending, 0, last=True, payload=b"again"))
    assert pending.answers == [(b"right", True)]
    assert metrics.counter("layerwire_dropped_answers_total").value == 2


def test_answers_to_an_ordinal_are_passed_on_once(router, metrics):
    worker = up(router)
    pending = ask(router)
    router.deliver(worker, answers(pending, 0, 1, payload=b"a"))
    router.deliver(worker, answers(pending, 1, 2, payload=b"b"))
    assert pending.answers == [(b"a", False)]
    assert metrics.counter("layerwire_dropped_answers_total").value == 1


def test_an_error_ends_a_frame(router):
    worker = up(router)
    pending = ask(router)
    router.deliver(worker, answers(pending, last=True, error=True, payload=b"status"))
    assert pending.error == b"status"
    router.down(worker, 1.0)
    assert up(router).take() == []


def test_an_abandoned_frame_is_taken_back_and_not_sent_again(router):
    worker = up(router)
    pending = ask(router, stream=3)
    worker.take()
    router.abandon(pending)
    assert worker.take() == [Frame(Kind.CANCEL_FRAME, pending.number, stream=3)]
    router.abandon(pending)
    assert worker.take() == []
    router.down(worker, 1.0)
    assert up(router).take() == []


def test_a_waiting_frame_can_be_abandoned(router):
    pending = ask(router)
    router.abandon(pending)
    assert up(router).take() == []


def test_cancelled_calls_are_told_to_every_worker_that_has_frames_of_the_stream(router):
    workers = [up(router) for _ in range(3)]
    frames = [ask(router, stream=5), ask(router, stream=5)]
    holders = [worker for worker in workers if worker.take()]
    router.cancel_calls(frames, 5, b"ids")
    assert len(holders) == 2
    for worker in workers:
        expected = [Frame(Kind.CANCEL_CALLS, payload=b"ids", stream=5)] if worker in holders else []
        assert worker.take() == expected


def test_a_worker_is_behind_by_what_its_last_frame_waited(router):
    worker = up(router)
    assert router.delay_seconds(0.0) == 0.0
    pending = ask(router, arrived=10.0)
    router.deliver(worker, answers(pending, 0)._replace(arrived=0.4), 11.0)
    assert router.delay_seconds(11.0) == pytest.approx(0.4)
    assert router.delay_seconds(11.3) == pytest.approx(0.1)
    assert router.delay_seconds(11.6) == 0.0
    router.deliver(worker, answers(pending, 1)._replace(arrived=0.2), 12.0)
    assert router.delay_seconds(12.0) == pytest.approx(0.2)
    other = up(router)
    assert router.delay_seconds(12.0) == 0.0  # another worker is not behind
    router.down(other, 12.0)
    router.deliver(worker, answers(pending, last=True)._replace(arrived=0.2), 12.0)
    assert router.delay_seconds(12.0) == 0.0  # it has nothing to do


def test_what_a_frame_waited_for_a_worker_is_not_the_workers_delay(router):
    pending = ask(router, arrived=0.0)
    worker = up(router, 5.0)
    router.deliver(worker, answers(pending, 0)._replace(arrived=5.01), 5.1)
    assert router.delay_seconds(5.1) == pytest.approx(0.01)
    heir = up(router, 6.0)
    router.down(worker, 7.0)
    router.deliver(heir, answers(pending, 1)._replace(arrived=7.03), 7.2)
    assert router.delay_seconds(7.2) == pytest.approx(0.03)
