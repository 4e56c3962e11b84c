"""The pure rules: admission, deadlines, retries, settings, options, templates."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from layerwire import errors
from layerwire.calls import Requests
from layerwire.transport import retry
from layerwire.transport.admission import Admission
from layerwire.transport.call import Call
from layerwire.transport.engine import Deadlines
from layerwire.transport.options import Options, wire
from layerwire.transport.rpc import message_without_data
from layerwire.transport.settings import make_settings
from layerwire.v1 import layerwire_pb2 as pb


class Doors(RuleBasedStateMachine):
    """Admission: bounds hold, nobody is lost, the line moves in its order."""

    MAX_CALLS, MAX_BYTES = 3, 100
    inside = Bundle("inside")
    line = Bundle("line")

    def __init__(self):
        super().__init__()
        self.admission = Admission(self.MAX_CALLS, self.MAX_BYTES)
        self.entered: list[int] = []
        self.waiting: list[list] = []

    def admitted(self, place):
        assert self.waiting[0] is place, "first come, first served"
        self.waiting.pop(0)
        self.entered.append(place[0])

    @rule(target=inside, nbytes=st.integers(1, 150))
    def enter(self, nbytes):
        if self.admission.enter(nbytes):
            assert not self.waiting
            self.entered.append(nbytes)
            return nbytes
        assert self.waiting or len(self.entered) == self.MAX_CALLS or sum(self.entered) + nbytes > self.MAX_BYTES
        return 0

    @rule(target=line, nbytes=st.integers(1, 150))
    def queue(self, nbytes):
        place = [nbytes, None]
        self.waiting.append(place)
        place[1] = self.admission.queue(nbytes, lambda: self.admitted(place))
        return place

    @rule(nbytes=consumes(inside))
    def leave(self, nbytes):
        if nbytes:
            self.entered.remove(nbytes)
            self.admission.leave(1, nbytes)

    @rule(place=consumes(line))
    def give_up_or_leave(self, place):
        if any(place is each for each in self.waiting):
            self.waiting[:] = [each for each in self.waiting if each is not place]
        else:
            self.entered.remove(place[0])
        self.admission.give_up(place[1])

    @invariant()
    def bounds_hold(self):
        assert len(self.entered) <= self.MAX_CALLS
        assert sum(self.entered) <= self.MAX_BYTES or len(self.entered) == 1
        assert (self.admission._calls, self.admission._bytes) == (len(self.entered), sum(self.entered))

    @invariant()
    def nobody_waits_for_nothing(self):
        if self.waiting:
            nbytes = self.waiting[0][0]
            assert len(self.entered) == self.MAX_CALLS or (self.entered and sum(self.entered) + nbytes > self.MAX_BYTES)


TestDoors = Doors.TestCase


def test_force_comes_in_regardless():
    admission = Admission(1, 10)
    assert admission.enter(5)
    admission.force(50)
    assert not admission.enter(1)
    admission.leave(2, 55)
    assert admission.enter(1)


@dataclass(eq=False)
class Timed:
    id: int
    deadline: float
    is_finished: bool = False


async def test_deadlines_expire_in_order_and_finished_calls_do_not():
    loop = asyncio.get_running_loop()
    expired: list[int] = []
    over = loop.create_future()

    def expire(call):
        call.is_finished = True
        expired.append(call.id)
        if call.id == 9:
            over.set_result(None)

    deadlines = Deadlines(loop, expire)
    now = time.monotonic()
    calls = [Timed(number, now + (number + 1) * 0.01) for number in range(10)]
    for call in random.Random(0).sample(calls, 10):
        deadlines.add(call)
    deadlines.add(Timed(10, math.inf))
    calls[4].is_finished = True
    await over
    assert expired == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert time.monotonic() >= now + 0.1
    deadlines.close()


async def test_finished_calls_do_not_pile_up():
    deadlines = Deadlines(asyncio.get_running_loop(), lambda call: None)
    for number in range(20_000):
        deadlines.add(Timed(number, time.monotonic() + 1000, is_finished=True))
        assert len(deadlines._heap) <= 1026
    deadlines.close()


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (grpc.StatusCode.OK, "", True),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", True),
        (grpc.StatusCode.CANCELLED, "", True),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", True),
        (grpc.StatusCode.UNKNOWN, "Stream removed", True),
        (grpc.StatusCode.INTERNAL, "internal error 4711", False),
        (grpc.StatusCode.UNAUTHENTICATED, "", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", False),
    ],
)
def test_broken(code, details, expected):
    assert retry.may_resend(code, details) is expected


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_backoff_is_bounded_and_jittered(failures, seed):
    delay = retry.backoff_seconds(failures, random.Random(seed))
    longest = min(retry.MAX_BACKOFF_SECONDS, retry.FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 20))
    assert longest / 2 <= delay <= longest


@given(calls=st.integers(0, 500), seed=st.integers())
def test_budget_is_a_tenth_of_the_calls_and_a_few(calls, seed):
    budget, chance = retry.Budget(2), random.Random(seed)
    retries = 0
    for _ in range(calls):
        budget.earn()
        retries += budget.delay_seconds(errors.UnavailableError("x"), 0, 100.0, chance) is not None
    assert retries <= calls * retry.Budget.SHARE + retry.Budget.SPARE


BUSY = errors.ResourceExhaustedError("x", retry_after_seconds=0.5)
DELAYS = {
    "unavailable": (errors.UnavailableError("x"), 0, 1.0, True),
    "third-try": (errors.UnavailableError("x"), 2, 1.0, False),
    "too-late": (errors.UnavailableError("x"), 0, 0.01, False),
    "busy": (BUSY, 0, 1.0, True),
    "busy-too-late": (BUSY, 0, 0.4, False),
    "full-for-good": (errors.ResourceExhaustedError("x"), 0, 1.0, False),
    "wrong": (errors.InvalidArgumentError("x"), 0, 1.0, False),
}


@pytest.mark.parametrize(("error", "tries", "left", "again"), DELAYS.values(), ids=DELAYS)
def test_delay(error, tries, left, again):
    delay = retry.Budget(2).delay_seconds(error, tries, left, random.Random(0))
    assert (delay is not None) is again
    if again:
        assert (error.retry_after_seconds or 0) <= delay < left


def settings(address="localhost:1", token=None, tls=None, metadata=None, **limits):
    return make_settings(address, token, tls, metadata, **limits)


REFUSED = {
    "no-address": (lambda: settings([]), ValueError, "at least one"),
    "address-type": (lambda: settings([5]), TypeError, "host:port"),
    "no-port": (lambda: settings("localhost"), ValueError, "host:port"),
    "port-0": (lambda: settings("localhost:0"), ValueError, "host:port"),
    "port-large": (lambda: settings("localhost:65536"), ValueError, "host:port"),
    "token-in-the-clear": (lambda: settings("example.org:443", "t"), ValueError, "token: example.org:443"),
    "token-to-one-in-the-clear": (lambda: settings(["127.0.0.1:1", "10.0.0.1:1"], "t"), ValueError, "10.0.0.1"),
    "token-type": (lambda: settings(token=3), TypeError, "token must be a string"),
    "token-line-break": (lambda: settings(token="a\nb"), ValueError, "token: has characters"),
    "metadata-key": (lambda: settings(metadata={"a b": "c"}), ValueError, "metadata: 'a b'"),
    "metadata-key-type": (lambda: settings(metadata=[(1, "c")]), TypeError, "metadata: 1"),
    "metadata-value": (lambda: settings(metadata={"a": "\u20ac"}), ValueError, "metadata: 'a'"),
    "metadata-value-type": (lambda: settings(metadata={"a": 5}), TypeError, "metadata: 'a'"),
    "metadata-bytes": (lambda: settings(metadata={"a": b"c"}), TypeError, "metadata: 'a'"),
    "metadata-not-bytes": (lambda: settings(metadata={"a-bin": "c"}), TypeError, "metadata: 'a-bin'"),
    "bytes-type": (lambda: settings(max_message_bytes="1"), TypeError, "max_message_bytes"),
    "bytes-0": (lambda: settings(max_bytes_in_flight=0), ValueError, "max_bytes_in_flight"),
    "retries": (lambda: settings(max_retries=-1), ValueError, "retries must be at least 0"),
    "timeout-0": (lambda: Options(0), ValueError, "timeout must be above 0"),
    "timeout-nan": (lambda: Options(math.nan), ValueError, "timeout must be above 0"),
    "timeout-type": (lambda: Options("1"), TypeError, "timeout must be a number"),
    "priority": (lambda: Options(priority=11), ValueError, "priority must be -10 to 10"),
    "priority-type": (lambda: Options(priority=1.0), TypeError, "priority must be an integer"),
    "deterministic": (lambda: Options(deterministic=1), TypeError, "deterministic must be True or False"),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "address", ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/run/x.sock", "ipv4:127.0.0.1:1"]
)
def test_tokens_go_to_this_host_in_the_clear(address):
    assert settings(address, "t").metadata == (("authorization", "Bearer t"),)


def test_tokens_go_anywhere_over_tls():
    assert settings("example.org:443", "t", tls=True).credentials is not None


@given(timeout=st.floats(1e-6, 9e8))
def test_the_server_is_told_at_least_the_timeout(timeout):
    told = pb.ActivateRequest.FromString(wire(Options(), timeout)).options.timeout_seconds
    assert timeout * 0.999999 <= told <= timeout * 1.11


@pytest.mark.parametrize("timeout", [None, 1e9, 1.7e308, math.inf], ids=str)
def test_the_server_is_not_told_of_forever(timeout):
    assert wire(Options(timeout), timeout) == b""


@pytest.mark.parametrize("timeout", [None, 1e-4, 30.0, 1e9 + 0.001, math.inf], ids=str)
def test_a_call_sent_again_is_as_sound_as_the_first(timeout):
    call = Call(Requests().relu(np.ones(3)), Options(timeout), Nobody())
    for now in (time.monotonic(), time.monotonic() + 20):
        call.renew(now)
        parts = b"".join(call.entry.parts(7, call.data))
        assert len(parts) == call.entry.nbytes
        assert pb.Calls.FromString(parts).calls[0].activate.input.data == np.ones(3).tobytes()


def test_timeouts_that_differ_little_share_a_template():
    assert len({wire(Options(), 1 + step / 10_000) for step in range(10_000)}) <= 11


class Nobody:
    def done(self):
        return True


ARRAYS = st.builds(np.zeros, st.lists(st.integers(0, 3), max_size=4).map(tuple), st.sampled_from(["f4", "f8", "i8"]))


@given(
    x=ARRAYS,
    weight=st.one_of(ARRAYS, st.text(max_size=200)),
    bias=st.one_of(st.none(), ARRAYS),
    number=st.integers(1, 2**64 - 1),
)
def test_a_calls_bytes_are_the_message(x, weight, bias, number):
    request = Requests().linear(x, weight, bias)
    options = Options(2.5, priority=-3, deterministic=True, timing=True)
    call = Call(request, options, Nobody())
    parsed = pb.Calls.FromString(b"".join(call.entry.parts(number, call.data))).calls[0]
    expected = pb.Call(id=number, linear=message_without_data(request, options))
    expected.linear.options.CopyFrom(
        pb.CallOptions(timeout_seconds=2.5, priority=-3, deterministic=True, return_timing=True)
    )
    for name, array in (("input", x), ("weight", weight), ("bias", bias)):
        if isinstance(array, np.ndarray):
            getattr(expected.linear, name).data = array.tobytes()
    assert parsed == expected
    assert call.nbytes == len(b"".join(call.entry.parts(number, call.data)))
