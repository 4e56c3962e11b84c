"""The router against workers that are lists: where frames go, and where when workers die."""

from __future__ import annotations

import math

import grpc
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from layerwire.errors import DeadlineExceededError, InternalError, UnavailableError
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2, tensor_pb2
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.router import Router
from layerwire_server.link import QUARANTINED, Family, Flag, Frame, Kind
from layerwire_server.metrics import Metrics


class FakeWorker:
    """Keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def send(self, frame):
        self.sent.append(frame)

    def take(self):
        """The frames since the last time."""
        sent, self.sent = self.sent, []
        return sent


class Asked(Pending):
    """Keeps what it is answered."""

    def __init__(self, kind=Kind.CALLS, payload=b"payload", arrived=0.0, stream=0, family=Family.NONE):
        super().__init__(kind, payload, arrived, math.inf, family, stream)
        self.answers = []
        self.error = None

    def answer(self, payload, last):
        self.answers.append((payload, last))

    def fail(self, error):
        assert self.error is None
        self.error = error


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def router(metrics):
    return Router(10.0, metrics)


def up(router, now=0.0):
    worker = FakeWorker()
    router.up(worker, now)
    return worker


def ask(router, **kwargs):
    pending = Asked(**kwargs)
    router.submit(pending)
    return pending


def answers(pending, *ordinals, last=False, error=False, payload=b"answer"):
    flags = (Flag.LAST if last else Flag.NONE) | (Flag.ERROR if error else Flag.NONE)
    return Frame(Kind.ANSWERS, pending.number, payload, flags, ordinals=ordinals)


def started(pending, *ordinals):
    return Frame(Kind.STARTED, pending.number, ordinals=ordinals)


def test_a_frame_goes_out_as_it_came_in_and_its_answers_back(router):
    worker = up(router)
    pending = ask(router, stream=7, arrived=3.0)
    (frame,) = worker.take()
    assert frame == Frame(Kind.CALLS, pending.number, b"payload", stream=7, arrived=3.0)
    router.deliver(worker, answers(pending, 0, payload=b"a"))
    router.deliver(worker, answers(pending, 1, last=True, payload=b"b"))
    assert pending.answers == [(b"a", False), (b"b", True)]


def test_the_least_loaded_worker_gets_the_next_frame(router):
    workers = [up(router), up(router)]
    ask(router, payload=b"x" * 100_000)
    ask(router)
    ask(router)
    assert sorted(len(worker.sent) for worker in workers) == [1, 2]
    assert max(len(worker.sent[0].payload) for worker in workers if len(worker.sent) == 1) == 100_000


def test_load_is_given_back_when_a_frame_is_answered(router):
    one, other = up(router), up(router)
    for _ in range(20):
        pending = ask(router, payload=b"x" * 1000)
        worker = one if one.take() else other
        other.take()
        router.deliver(worker, answers(pending, 0, last=True))
    big = [ask(router), ask(router)]
    assert len(one.sent) == len(other.sent) == 1
    assert {pending.number for pending in big} == {one.sent[0].frame, other.sent[0].frame}


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


def test_the_call_that_ran_alone_in_a_second_death_is_quarantined_and_the_others_go_on(router, metrics):
    one = up(router)
    pending = ask(router)
    router.deliver(one, answers(pending, 0))
    router.down(one, 1.0)
    two = up(router)
    router.deliver(two, started(pending))
    router.deliver(two, started(pending, 1))
    router.deliver(two, answers(pending, 1))
    router.deliver(two, started(pending, 3))
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
    router.deliver(two, started(pending, 0))
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
    router.deliver(worker, started(pending, *ordinals))
    router.down(worker, 2.0)
    assert isinstance(pending.error, InternalError)
    assert pending.error.error_id == f"{pending.number:016x}"
    assert up(router).take() == []
    assert metrics.counter("layerwire_quarantined_requests_total").value == 1


def test_what_runs_in_company_when_its_worker_dies_is_not_to_blame(router):
    one = up(router)
    pending = ask(router)
    router.deliver(one, started(pending, 1))
    router.down(one, 1.0)
    (frame,) = up(router).take()
    assert frame.ordinals == ()


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


def relu(data=b"data", **options):
    return pb.ActivateRequest(
        options=pb.CallOptions(**options) if options else None,
        operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()),
        input=tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=data),
    )


def calls(requests):
    """A message of calls: {id: request}."""
    made = [pb.Call(id=call_id, activate=request) for call_id, request in requests.items()]
    return pb.StreamRequest(calls=pb.Calls(calls=made)).SerializeToString()


def cancel(*ids):
    return pb.StreamRequest(cancel=pb.Cancellation(ids=ids)).SerializeToString()


def statuses(pending):
    """The errors that some calls were answered with: {id: name of the code}."""
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    found = [answer for payload, _ in pending.answers for answer in pb.StreamResponse.FromString(payload).answers]
    return {answer.id: codes[answer.status.code] for answer in found}


def kill_twice(router, ordinal, now=0.0, **kwargs):
    """A frame whose call kills two workers."""
    pending = ask(router, **kwargs)
    router.down(up(router, now), now)
    worker = up(router, now)
    router.deliver(worker, started(pending, ordinal))
    router.down(worker, now)
    return pending


SAME = {  # what a call that killed may look like when it comes again
    "alone": (calls({9: relu(b"kill")}), Family.NONE, [0]),
    "among others": (calls({1: relu(b"good"), 2: relu(b"kill"), 3: relu(b"longer")}), Family.NONE, [1]),
    "with options": (calls({5: relu(b"kill", timeout_seconds=9.0, priority=-3)}), Family.NONE, [0]),
    "unary": (relu(b"kill").SerializeToString(), Family.ACTIVATE, [0]),
    "unary, with options": (relu(b"kill", return_timing=True).SerializeToString(), Family.ACTIVATE, [0]),
}
OTHERS = {
    "other data": (calls({9: relu(b"fine")}), Family.NONE),
    "other length": (calls({9: relu(b"killer")}), Family.NONE),
    "other operator": (calls({9: relu(b"kill")}).replace(b"\x1a", b"\x22", 1), Family.NONE),
    "other method": (relu(b"kill").SerializeToString(), Family.LINEAR),
    "estimate": (relu(b"kill").SerializeToString(), Family.ESTIMATE),
    "no message": (b"\x0a\xff" + bytes(30), Family.NONE),
}


@pytest.mark.parametrize("learnt", ["stream", "unary"])
@pytest.mark.parametrize(("payload", "family", "ordinals"), SAME.values(), ids=SAME)
def test_a_call_that_killed_is_not_run_when_it_comes_again(router, learnt, payload, family, ordinals):
    if learnt == "stream":
        router.abandon(kill_twice(router, 1, payload=calls({1: relu(), 2: relu(b"kill", priority=1)})))
    else:
        kill_twice(router, 0, kind=Kind.UNARY, payload=relu(b"kill").SerializeToString(), family=Family.ACTIVATE)
    worker = up(router)
    ask(router, kind=Kind.CALLS if family is Family.NONE else Kind.UNARY, payload=payload, family=family)
    (frame,) = worker.take()
    assert frame.flags is Flag.NONE
    assert frame.ordinals == tuple(ordinal | QUARANTINED for ordinal in ordinals)


@pytest.mark.parametrize(("payload", "family"), OTHERS.values(), ids=OTHERS)
def test_other_calls_run_though_one_killed(router, payload, family):
    router.abandon(kill_twice(router, 0, payload=calls({1: relu(b"kill")})))
    worker = up(router)
    ask(router, kind=Kind.CALLS if family is Family.NONE else Kind.UNARY, payload=payload, family=family)
    assert worker.take()[0].ordinals == ()


def test_quarantine_ends(router):
    router.abandon(kill_twice(router, 0, now=100.0, payload=calls({1: relu(b"kill")})))
    worker = up(router)
    ask(router, payload=calls({1: relu(b"kill")}), arrived=699.0)
    ask(router, payload=calls({1: relu(b"kill")}), arrived=700.0)
    assert [frame.ordinals for frame in worker.take()] == [(QUARANTINED,), ()]


def test_quarantine_is_bounded(router):
    for number in range(300):
        router.abandon(kill_twice(router, 0, payload=calls({1: relu(b"%3d" % number)})))
    worker = up(router)
    for number in range(300):
        ask(router, payload=calls({1: relu(b"%3d" % number)}))
    assert [bool(frame.ordinals) for frame in worker.take()] == [False] * 44 + [True] * 256


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


@pytest.mark.parametrize("payload", [b"", b"\x12\x05\x0a\xff", b"\x0a\x03\x0a\x01\x07", b"\xff" * 20])
def test_messages_that_cannot_be_followed_wait_and_go_on(router, payload):
    pending = ask(router, payload=payload)
    router.cancel_calls([pending], 0, payload)
    router.expire(9.0)
    assert pending.answers == []
    assert [frame.ordinals for frame in up(router).take()] == [()]


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
            for frame in worker.sent[:1]:
                done = {ordinal & ~QUARANTINED for ordinal in frame.ordinals if not ordinal & QUARANTINED}
                done |= {ordinal for payload, _ in self.frames[frame.frame].answers for ordinal in payload}
                owed = sorted(set(range(self.calls[frame.frame])) - done)
                if not owed:
                    continue
                some = owed[: data.draw(st.integers(1, len(owed)))]
                last = len(some) == len(owed)
                pending = self.frames[frame.frame]
                self.router.deliver(worker, answers(pending, *some, last=last, payload=bytes(some)))
                if last:
                    worker.sent.pop(0)
                elif frame.flags & Flag.ISOLATE and runs_next:
                    self.router.deliver(worker, started(pending, owed[len(some)]))

    @invariant()
    def nothing_is_lost_or_answered_twice(self):
        for number, pending in getattr(self, "frames", {}).items():
            answered = [ordinal for payload, _ in pending.answers for ordinal in payload]
            assert len(answered) == len(set(answered))
            assert pending.error is None
            complete = len(answered) == self.calls[number]
            held = sum(frame.frame == number for worker in self.workers for frame in worker.sent)
            assert held == (1 if self.workers and not complete else 0)

    def teardown(self):
        if not hasattr(self, "frames"):
            return
        worker = up(self.router)
        for one in self.workers:
            self.router.down(one, 0.0)
        for frame in worker.take():
            done = {ordinal for payload, _ in self.frames[frame.frame].answers for ordinal in payload}
            owed = tuple(sorted(set(range(self.calls[frame.frame])) - done))
            self.router.deliver(worker, answers(self.frames[frame.frame], *owed, last=True, payload=bytes(owed)))
        self.workers = [worker]
        for pending in self.frames.values():
            assert pending.answers[-1][1]


Deaths.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestDeaths = Deaths.TestCase
