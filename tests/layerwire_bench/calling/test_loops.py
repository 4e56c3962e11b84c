"""Closed and open loops against a target whose answers come when the test says so."""

import asyncio
import itertools
import time

import numpy as np
import pytest

from layerwire.calls import Requests
from layerwire_bench.calling.checker import Checker
from layerwire_bench.calling.loops import ClosedLoop, OpenLoop, SampleOrder
from layerwire_bench.calling.tally import Tally
from layerwire_bench.targets.target import Target
from layerwire_bench.workload import Entry, Sample, Workload

ONE = np.ones(1, "float32")


def workload(*shares):
    entries = tuple(Entry(f"entry {number}", "", share) for number, share in enumerate(shares))
    samples = [
        Sample(number, Requests().relu(ONE * turn), {"output": ONE * turn}, 0, 0)
        for number in range(len(shares))
        for turn in (1, 2)
    ]
    return Workload(entries, tuple(samples), "")


class Held(Target):
    """Keeps calls until the test answers them; `prepared` is the sample's number."""

    def __init__(self):
        self.waiting = []
        self.fired = asyncio.Event()
        self.count = 0

    async def __aexit__(self, *_):
        pass

    def prepare(self, sample, entry):
        raise NotImplementedError

    def fire(self, call, callback):
        self.count += 1
        self.waiting.append((call, callback))
        self.fired.set()

    def outputs(self, prepared, answer):
        return answer

    async def until(self, count):
        while self.count < count:
            self.fired.clear()
            await self.fired.wait()

    def answer(self, code="OK", answer=None):
        _, callback = self.waiting.pop(0)
        callback(answer, code, "said")


def source(of=None):
    mix = of or workload(1.0)
    return SampleOrder(mix, list(range(len(mix.samples))), seed=0)


async def test_callers_each_wait_for_their_answer():
    target, tally = Held(), Tally()
    loop = ClosedLoop(target, source(), tally, None, 3)
    loop.start(time.monotonic())
    await target.until(3)
    await asyncio.sleep(0)
    assert (target.count, loop.in_flight) == (3, 3)
    target.answer()
    assert (target.count, loop.in_flight) == (4, 3)
    loop.stop()
    while target.waiting:
        target.answer()
    assert await loop.idle(1.0) == 0
    assert target.count == 4
    assert len(tally.take().due) == 4


async def test_a_caller_pauses_after_an_error_and_longer_after_the_next(monkeypatch):
    target, tally = Held(), Tally()
    loop = ClosedLoop(target, source(), tally, None, 1)
    pauses = []
    later = loop.loop.call_later
    loop.start(time.monotonic())
    await target.until(1)

    class Watching:
        def call_later(self, delay, callback):
            pauses.append(delay)
            later(0, callback)

    loop.loop = Watching()
    for turn in range(1, 4):
        target.answer("UNAVAILABLE")
        await target.until(turn + 1)
    target.answer()
    target.answer("UNAVAILABLE")
    assert pauses == [0.01, 0.02, 0.04, 0.01]
    assert tally.take().errors() == {"UNAVAILABLE": 4}
    assert tally.first_error is None  # taken


async def test_open_loops_do_not_wait_for_answers():
    target, tally = Held(), Tally()
    loop = OpenLoop(target, source(), tally, None, iter(np.arange(0, 10, 0.0001).tolist()))
    loop.start(time.monotonic())
    await target.until(50)
    assert loop.in_flight == target.count >= 50
    loop.stop()
    while target.waiting:
        target.answer()
    assert await loop.idle(1.0) == 0


class Stalling(Held):
    """Nothing can be sent while the first call is."""

    def fire(self, call, callback):
        super().fire(call, callback)
        if self.count == 1:
            time.sleep(0.4)


async def test_latency_counts_from_when_a_call_was_due_though_the_client_stalled():
    target, tally = Stalling(), Tally()
    start = time.monotonic()
    loop = OpenLoop(target, source(), tally, None, iter([0.0, 0.3, 0.31, 0.32, 1e6]))
    loop.start(start)
    await target.until(4)
    for _ in range(4):
        target.answer()
    loop.stop()
    notes = tally.take()
    assert np.allclose(notes.due - start, [0, 0.3, 0.31, 0.32])
    assert (notes.seconds[1:] >= 0.4 - 0.32).all()
    assert (notes.late[1:] >= 0.4 - 0.32 - 0.001).all()


async def test_in_an_open_loop_too_many_calls_out_hold_back_further_ones(monkeypatch):
    monkeypatch.setattr("layerwire_bench.calling.loops.MAX_IN_FLIGHT", 5)
    target, tally = Held(), Tally()
    loop = OpenLoop(target, source(), tally, None, itertools.repeat(0.0))
    loop.start(time.monotonic())
    await target.until(5)
    for _ in range(20):
        await asyncio.sleep(0)
    assert target.count == 5
    target.answer()
    await target.until(6)
    assert loop.in_flight == 5
    loop.stop()


async def test_calls_that_never_end_are_counted():
    target, tally = Held(), Tally()
    loop = ClosedLoop(target, source(), tally, None, 2)
    loop.start(time.monotonic())
    await target.until(2)
    loop.stop()
    target.answer()
    assert await loop.idle(0.01) == 1


def test_samples_come_by_their_entries_shares():
    mix = workload(0.75, 0.25)
    following = source(mix)
    drawn = [following.next()[0] for _ in range(8192)]
    counts = np.bincount(drawn, minlength=4)
    assert counts / len(drawn) == pytest.approx([0.375, 0.375, 0.125, 0.125], abs=0.03)


def checker(verify, mix, firsts=None):
    return Checker(Held(), mix.samples, list(range(len(mix.samples))), verify, {} if firsts is None else firsts)


async def test_all_answers_are_checked():
    mix = workload(1.0)
    look = checker("all", mix)
    for turn in range(100):
        look.look(0, {"output": ONE if turn != 57 else ONE * 3})
    assert (look.comparisons, look.wrong) == (100, [1])
    assert look.first_wrong.startswith("relu: output")


async def test_a_sample_of_the_answers_is_what_there_is_time_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("layerwire_bench.calling.checker.time.monotonic", lambda: now[0])
    look = checker("sample", workload(1.0))
    outputs = look._target.outputs

    def slow(prepared, answer):
        now[0] += 0.001
        return outputs(prepared, answer)

    look._target.outputs = slow
    for _ in range(10_000):
        now[0] += 0.001  # a call a millisecond, of which checking would take another
        look.look(0, {"output": ONE})
    assert 0.015 < look.comparisons / 10_000 < 0.03


async def test_without_an_expectation_the_first_answer_is_it_for_all_targets():
    samples = (Sample(0, Requests().relu(ONE), None, 0, 0),)
    mix = Workload((Entry("a", "", 1.0),), samples, "")
    firsts = {}
    one, other = checker("all", mix, firsts), checker("all", mix, firsts)
    assert one.compare(0, {"output": ONE}) is None
    assert "output" in other.compare(0, {"output": ONE * 2})
    assert other.wrong == [1]


async def test_an_answer_that_cannot_be_read_is_wrong():
    look = checker("all", workload(1.0))

    def broken(prepared, answer):
        raise ValueError("no tensor")

    look._target.outputs = broken
    look.look(0, None)
    assert look.wrong == [1]
    assert "can't be read: no tensor" in look.first_wrong


async def test_calls_that_were_due_and_never_sent_are_counted_by_window(monkeypatch):
    monkeypatch.setattr("layerwire_bench.calling.loops.MAX_IN_FLIGHT", 5)
    target, tally = Held(), Tally()
    due = [*np.arange(0.005, 0.1, 0.01).tolist(), 1e6]
    loop = OpenLoop(target, source(), tally, None, iter(due))
    loop.start(time.monotonic() - 0.2)
    await target.until(5)
    assert loop.unsent(0.05) == ()  # it goes on
    loop.stop()
    assert loop.unsent(0.05) == (0, 5)
