"""Deaths of workers: what they left is run again, what kills is not, and no call is lost or answered twice."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from layerwire.errors import InternalError
from layerwire_server.child.control import DeathCause
from layerwire_server.gateway.router import Router
from layerwire_server.link import QUARANTINED, Flag, Kind
from layerwire_server.metrics import Metrics
from tests.gateway.frames import (
    answers,
    ask,
    started_frame,
    up,
)


def test_frames_of_a_dead_worker_go_to_a_live_one_without_what_was_answered(router, metrics):
    one = up(router)
    pending = ask(router)
    router.deliver(one, answers(pending, 2, 0))
    other = up(router)
    router.down(one, 1.0)
    (frame,) = other.take()
    assert frame.flags is Flag.ISOLATE
    assert frame.ordinals == (0, 2)
    assert frame.frame == pending.number
    assert frame.payload == b"payload"
    assert metrics.counter("layerwire_retried_frames_total").value == 1


def test_frames_wait_for_a_worker_when_the_last_one_dies(router):
    one = up(router)
    first, second = ask(router), ask(router)
    router.down(one, 1.0)
    third = ask(router, arrived=2.0)
    other = up(router, 3.0)
    assert [(frame.frame, frame.flags) for frame in other.take()] == [
        (first.number, Flag.ISOLATE),
        (second.number, Flag.ISOLATE),
        (third.number, Flag.NONE),
    ]


def test_the_call_that_ran_alone_in_a_second_death_is_quarantined_and_the_others_go_on(router, metrics):
    one = up(router)
    pending = ask(router)
    router.deliver(one, answers(pending, 0))
    router.down(one, 1.0)
    two = up(router)
    router.deliver(two, started_frame(pending))
    router.deliver(two, started_frame(pending, 1))
    router.deliver(two, answers(pending, 1))
    router.deliver(two, started_frame(pending, 3))
    router.down(two, 2.0)
    three = up(router)
    (frame,) = three.take()
    assert frame.ordinals == (0, 1, 3 | QUARANTINED)
    assert frame.flags is Flag.ISOLATE
    router.deliver(three, answers(pending, 3, 2, last=True))
    assert pending.error is None
    assert metrics.counter("layerwire_quarantined_requests_total").value == 1


def test_a_death_between_two_calls_quarantines_nobody(router, metrics):
    one = up(router)
    pending = ask(router)
    router.down(one, 1.0)
    two = up(router)
    router.deliver(two, started_frame(pending, 0))
    router.deliver(two, answers(pending, 0))
    router.down(two, 2.0)
    (frame,) = up(router).take()
    assert frame.ordinals == (0,)
    assert metrics.counter("layerwire_quarantined_requests_total").value == 0


def test_a_frame_that_did_not_run_is_innocent_however_often_workers_die(router, metrics):
    pending = ask(router)
    for now in range(20):
        router.down(up(router, now), now)
    assert pending.error is None
    (frame,) = up(router).take()
    assert frame.ordinals == ()
    assert metrics.counter("layerwire_retried_frames_total").value == 20


@pytest.mark.parametrize(("kind", "ordinals"), [(Kind.CALLS, ()), (Kind.UNARY, ()), (Kind.UNARY, (0,))])
def test_what_kills_as_a_whole_fails_as_a_whole(router, metrics, kind, ordinals):
    pending = ask(router, kind=kind)
    router.down(up(router), 1.0)
    worker = up(router)
    router.deliver(worker, started_frame(pending, *ordinals))
    router.down(worker, 2.0)
    assert isinstance(pending.error, InternalError)
    assert pending.error.error_id == f"{pending.number:016x}"
    assert up(router).take() == []
    assert metrics.counter("layerwire_quarantined_requests_total").value == 1


def test_what_runs_in_company_when_its_worker_dies_is_not_to_blame(router):
    one = up(router)
    pending = ask(router)
    router.deliver(one, started_frame(pending, 1))
    router.down(one, 1.0)
    (frame,) = up(router).take()
    assert frame.ordinals == ()


class Deaths(RuleBasedStateMachine):
    """Workers come, answer, and die in any order: no call is lost, none is answered twice."""

    @initialize()
    def begin(self):
        self.router = Router(math.inf, Metrics())
        self.workers = []
        self.frames = {}
        self.calls = {}

    @rule()
    def worker_comes(self):
        self.workers.append(up(self.router))

    @rule(calls=st.integers(1, 4))
    def frame_comes(self, calls):
        pending = ask(self.router)
        self.frames[pending.number] = pending
        self.calls[pending.number] = calls

    @rule(data=st.data())
    def worker_dies(self, data):
        if self.workers:
            worker = self.workers.pop(data.draw(st.integers(0, len(self.workers) - 1)))
            self.router.down(worker, 0.0)

    @rule(data=st.data(), runs_next=st.booleans())
    def worker_answers(self, data, runs_next):
        for worker in self.workers:
            for frame in worker.frames[:1]:
                done = {ordinal & ~QUARANTINED for ordinal in frame.ordinals if not ordinal & QUARANTINED}
                done |= {ordinal for payload, _ in self.frames[frame.frame].answers for ordinal in payload}
                open_ordinals = sorted(set(range(self.calls[frame.frame])) - done)
                if not open_ordinals:
                    continue
                some = open_ordinals[: data.draw(st.integers(1, len(open_ordinals)))]
                last = len(some) == len(open_ordinals)
                pending = self.frames[frame.frame]
                self.router.deliver(worker, answers(pending, *some, last=last, payload=bytes(some)))
                if last:
                    worker.frames.pop(0)
                elif frame.flags & Flag.ISOLATE and runs_next:
                    self.router.deliver(worker, started_frame(pending, open_ordinals[len(some)]))

    @invariant()
    def nothing_is_lost_or_answered_twice(self):
        for number, pending in getattr(self, "frames", {}).items():
            ordinals = [ordinal for payload, _ in pending.answers for ordinal in payload]
            assert len(ordinals) == len(set(ordinals))
            assert pending.error is None
            complete = len(ordinals) == self.calls[number]
            held = sum(frame.frame == number for worker in self.workers for frame in worker.frames)
            assert held == (1 if self.workers and not complete else 0)

    def teardown(self):
        if not hasattr(self, "frames"):
            return
        worker = up(self.router)
        for one in self.workers:
            self.router.down(one, 0.0)
        for frame in worker.take():
            done = {ordinal for payload, _ in self.frames[frame.frame].answers for ordinal in payload}
            rest = tuple(sorted(set(range(self.calls[frame.frame])) - done))
            self.router.deliver(worker, answers(self.frames[frame.frame], *rest, last=True, payload=bytes(rest)))
        self.workers = [worker]
        for pending in self.frames.values():
            assert pending.answers[-1][1]


Deaths.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestDeaths = Deaths.TestCase


def alone(router, pending, ordinal=0):
    """A worker that runs a call of an isolated frame."""
    worker = up(router)
    router.deliver(worker, started_frame(pending, ordinal))
    return worker


@pytest.mark.parametrize("cause", [DeathCause.HANG, DeathCause.MEMORY, DeathCause.EXIT])
def test_what_proves_nothing_is_tried_once_more_alone(router, metrics, cause):
    pending = ask(router)
    router.down(up(router), 1.0, cause)
    router.down(alone(router, pending), 2.0, cause)
    assert (pending.quarantined_ordinals, pending.suspect_ordinals) == (set(), {0})
    router.down(alone(router, pending), 3.0, cause)
    (frame,) = up(router).take()
    assert frame.ordinals == (0 | QUARANTINED,)
    assert metrics.counter("layerwire_quarantined_requests_total").value == 1


def test_a_suspect_that_is_answered_is_innocent_and_another_is_no_suspect_for_it(router, metrics):
    pending = ask(router)
    router.down(up(router), 1.0)
    router.down(alone(router, pending), 2.0, DeathCause.HANG)
    worker = alone(router, pending)
    router.deliver(worker, answers(pending, 0))
    router.deliver(worker, started_frame(pending, 1))
    router.down(worker, 3.0, DeathCause.HANG)
    (frame,) = up(router).take()
    assert frame.ordinals == (0,)
    assert metrics.counter("layerwire_quarantined_requests_total").value == 0


def test_kills_from_outside_prove_nothing_however_many(router, metrics):
    pending = ask(router)
    router.down(up(router), 1.0, DeathCause.OUTSIDE)
    for now in range(20):
        router.down(alone(router, pending), now, DeathCause.OUTSIDE)
    assert metrics.counter("layerwire_quarantined_requests_total").value == 0
    (frame,) = up(router).take()
    assert (frame.ordinals, pending.suspect_ordinals) == ((), set())


def test_others_avoid_a_worker_that_has_a_suspect(router):
    pending = ask(router)
    router.down(up(router), 1.0)
    router.down(alone(router, pending), 2.0, DeathCause.HANG)
    with_suspect = up(router)
    assert len(with_suspect.take()) == 1
    other = up(router)
    for _ in range(5):
        ask(router, payload=bytes(1000))
    assert (len(with_suspect.take()), len(other.take())) == (0, 5)
    router.deliver(with_suspect, answers(pending, 0, last=True))
    ask(router)
    assert (len(with_suspect.take()), len(other.take())) == (1, 0)


@pytest.mark.parametrize(("cause", "deaths"), [(DeathCause.FAULT, 1), (DeathCause.OUTSIDE, 0)])
def test_a_frame_waits_until_the_cause_is_known(router, metrics, cause, deaths):
    pending, other = ask(router), ask(router)
    router.down(up(router), 1.0)
    worker = alone(router, pending)
    router.down(worker, 2.0, DeathCause.UNKNOWN)
    three = up(router)
    assert [frame.frame for frame in three.take()] == [other.number]
    router.judge(three, cause, 2.1)
    assert three.take() == []
    router.judge(worker, cause, 2.1)
    (frame,) = three.take()
    assert (frame.frame, len(frame.ordinals)) == (pending.number, deaths)
    assert metrics.counter("layerwire_quarantined_requests_total").value == deaths


def test_a_cause_that_nobody_tells_is_waited_for_no_longer_than_seconds(router):
    pending = ask(router)
    router.down(up(router), 1.0)
    router.down(alone(router, pending), 2.0, DeathCause.UNKNOWN)
    three = up(router)
    router.expire(3.0)
    assert three.take() == []
    router.expire(4.5)
    (frame,) = three.take()
    assert (frame.frame, pending.suspect_ordinals) == (pending.number, {0})


def test_a_frame_that_waits_for_the_cause_may_be_given_up(router):
    pending = ask(router)
    router.down(up(router), 1.0)
    worker = alone(router, pending)
    router.down(worker, 2.0, DeathCause.UNKNOWN)
    router.abandon(pending)
    router.judge(worker, DeathCause.FAULT, 2.1)
    router.expire(10.0)
    assert up(router).take() == []
    assert pending.error is None
