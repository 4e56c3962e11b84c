"""Lanes as a pure rule: a state machine drives them beside a plain list and asserts their promises at each step."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from layerwire_server.worker.lanes.lane import Batch, Full, LaneItem, Limits
from layerwire_server.worker.lanes.lanes import OLDEST_EVERY, Lanes

LIMITS = Limits(batch_rows=8, batch_bytes=64, batch_cost=20.0, queue_calls=40, queue_bytes=400)


class Item(LaneItem):
    """Calls of the tests; each has a number."""

    numbers = itertools.count()

    def __init__(self, key: str = "a", **facts: float) -> None:
        self.key = key
        self.caller = facts.get("caller", 0)
        self.count = int(facts.get("count", 1))
        self.calls = [next(self.numbers) for _ in range(self.count)]
        self.rows = int(facts.get("rows", 1))
        self.nbytes = self.footprint = int(facts.get("nbytes", 1))
        self.cost = facts.get("cost", 1.0)
        self.priority = int(facts.get("priority", 0))
        self.deadline = facts.get("deadline", math.inf)
        self.arrival_time = facts.get("arrival_time", 0.0)
        self.is_gone = True
        self.order = 0

    def part(self, start: int, stop: int) -> Item:
        other = copy.copy(self)
        other.keep(start, stop)
        return other

    def keep(self, start: int, stop: int) -> None:
        self.calls = self.calls[start:stop]
        self.count = len(self.calls)
        self.order += start


def lanes_with(*items: Item, limits: Limits = LIMITS, max_rows: int = 1000) -> Lanes[Item]:
    lanes: Lanes[Item] = Lanes(limits)
    for item in items:
        lanes.offer(item, max_rows, item.arrival_time)
    return lanes


def next_calls(lanes: Lanes[Item], now: float = 0.0) -> list[Item]:
    batch = lanes.take(now)
    return batch.calls if batch else []


class LanesMachine(RuleBasedStateMachine):
    """Random offers, withdrawals, passing time and batches."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[Item] = Lanes(LIMITS)
        self.waiting: list[Item] = []
        self.ended: Counter[Item] = Counter()
        self.now = 0.0
        self.passed_over: Counter[Item] = Counter()

    @rule(
        key=st.sampled_from("abcd"), caller=st.integers(0, 2),
        rows=st.integers(0, 12), nbytes=st.integers(0, 90), cost=st.floats(0, 30),
        priority=st.integers(-3, 3), within=st.one_of(st.just(math.inf), st.floats(0.1, 5)),
    )  # fmt: skip
    def offer(self, key: str, caller: int, rows: int, nbytes: int, cost: float, priority: int, within: float) -> None:
        item = Item(
            key,
            caller=caller,
            rows=rows,
            nbytes=nbytes,
            cost=cost,
            priority=priority,
            deadline=self.now + within,
            arrival_time=self.now,
        )
        too_many = len(self.waiting) >= LIMITS.queue_calls
        queue_bytes = sum(call.nbytes for call in self.waiting)
        too_large = bool(self.waiting) and queue_bytes + nbytes > LIMITS.queue_bytes
        try:
            self.lanes.offer(item, 6, self.now)
        except Full as full:
            assert too_many or too_large
            assert full.reason == ("calls" if too_many else "bytes")
            assert 0.01 <= full.retry_after_seconds <= 5
        else:
            assert not too_many and not too_large
            self.waiting.append(item)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        assert self.lanes.withdraw(item, self.now)
        assert not self.lanes.withdraw(item, self.now)
        self._end(item)

    @rule(seconds=st.floats(0.0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for item in self.lanes.expire(self.now):
            assert item.deadline <= self.now
            self._end(item)

    @rule(seconds=st.floats(0, 2))
    def run(self, seconds: float) -> None:
        before = list(self.waiting)
        batch = self.lanes.take(self.now)
        if not before:
            assert batch is None
            return
        assert batch is not None and batch.calls, "a device never idles while calls wait"
        self._check(batch)
        oldest = min(before, key=lambda call: (call.arrival_time, call.order))
        for item in batch.calls:
            self._end(item)
        if oldest not in batch.calls:
            self.passed_over[oldest] += 1
            assert self.passed_over[oldest] < OLDEST_EVERY, "the oldest call is never passed over for long"
        self.lanes.charge(batch, seconds)

    def _check(self, batch: Batch[Item]) -> None:
        calls = batch.calls
        assert {call.key for call in calls} == {batch.key}, "keys never mix"
        assert batch.rows == sum(call.rows for call in calls)
        if len(calls) > 1:
            assert batch.rows <= 6
            assert sum(call.nbytes for call in calls) <= LIMITS.batch_bytes
            assert sum(call.cost for call in calls) <= LIMITS.batch_cost + 1e-9
        if batch.reason == "drained":
            assert all(call.key != batch.key for call in self.waiting if call not in calls)

    def _end(self, item: Item) -> None:
        self.ended[item] += 1
        assert self.ended[item] == 1, "no call ends twice"
        self.waiting.remove(item)

    @invariant()
    def counts_agree(self) -> None:
        assert set(self.lanes.waiting_calls()) == set(self.waiting), "nothing is lost"
        assert self.lanes.calls == len(self.waiting)
        assert self.lanes.nbytes == sum(call.nbytes for call in self.waiting)
        assert len(self.lanes) == len({call.key for call in self.waiting})
        earliest = min((call.deadline for call in self.waiting), default=math.inf)
        assert self.lanes.wake_at(self.now) == earliest

    def teardown(self) -> None:
        while self.waiting:
            self.run(0.1)


TestLanesMachine = LanesMachine.TestCase
TestLanesMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_earliest_deadline_first_inside_a_priority() -> None:
    late, early, urgent = Item(deadline=9.0), Item(deadline=5.0), Item(deadline=99.0, priority=1)
    lanes = lanes_with(late, early, urgent, max_rows=1)
    assert [next_calls(lanes) for _ in range(3)] == [[urgent], [early], [late]]


def test_higher_priority_leaves_first_whatever_its_lane() -> None:
    plain, urgent = Item("a"), Item("b", priority=2)
    lanes = lanes_with(plain, urgent)
    assert next_calls(lanes) == [urgent]


def test_alternating_keys_make_two_batches() -> None:
    lanes = lanes_with(*(Item("ab"[i % 2], arrival_time=float(i)) for i in range(8)))
    batches = [lanes.take(10.0), lanes.take(10.0)]
    assert [len(batch.calls) for batch in batches if batch] == [4, 4]


def test_lanes_share_device_seconds() -> None:
    """A lane whose batches take ten times as long runs about a tenth as often.

    Not exactly: every eighth batch goes to the oldest call, which is mostly the slow lane's.
    """
    lanes: Lanes[Item] = Lanes(LIMITS._replace(batch_rows=1))
    seconds = {"slow": 1.0, "quick": 0.1}
    spent: Counter[str] = Counter()
    now = 0.0
    for key in seconds:
        for _ in range(2):
            lanes.offer(Item(key, arrival_time=now), 1, now)
    for _ in range(400):
        batch = lanes.take(now)
        assert batch is not None
        now += seconds[batch.key]
        spent[batch.key] += seconds[batch.key]
        lanes.offer(Item(batch.key, arrival_time=now), 1, now)
        lanes.charge(batch, seconds[batch.key])
    assert 0.7 < spent["slow"] / spent["quick"] < 2


def test_an_idle_lane_keeps_its_debt() -> None:
    """A caller that waits for each answer of a slow lane gains nothing by its lane being empty meanwhile."""
    lanes: Lanes[Item] = Lanes(LIMITS._replace(batch_rows=1))
    now, order = 0.0, ""
    for key in ("slow", "quick"):
        lanes.offer(Item(key, arrival_time=now), 1, now)
    for _ in range(20):
        batch = lanes.take(now)
        assert batch is not None
        order += batch.key[0]
        seconds = 1.0 if batch.key == "slow" else 0.1
        now += seconds
        lanes.charge(batch, seconds)
        lanes.offer(Item(batch.key, arrival_time=now), 1, now)
    assert order.count("q") > 3 * order.count("s")


@pytest.mark.parametrize("lanes_of_flood", [1, 32, "fresh"])
def test_a_caller_gains_nothing_by_many_lanes(lanes_of_flood: int | str) -> None:
    """A flood of slow calls over many keys, or a new key each, and one caller of quick calls that waits for each."""
    lanes: Lanes[Item] = Lanes(LIMITS._replace(batch_rows=1))
    now, count, waited = 0.0, 0, []

    def flood() -> None:
        nonlocal count
        count += 1
        key = f"slow{count % lanes_of_flood}" if isinstance(lanes_of_flood, int) else f"slow{count}"
        lanes.offer(Item(key, caller=1, arrival_time=now), 1, now)

    for _ in range(30):
        flood()
    lanes.offer(Item("quick", caller=2, arrival_time=now), 1, now)
    slow_calls = 0
    for _ in range(400):
        batch = lanes.take(now)
        assert batch is not None
        seconds = 0.01 if batch.key == "quick" else 1.0
        now += seconds
        lanes.charge(batch, seconds)
        if batch.key == "quick":
            waited.append(slow_calls)
            slow_calls = 0
            lanes.offer(Item("quick", caller=2, arrival_time=now), 1, now)
        else:
            slow_calls += 1
            flood()
    assert max(waited[1:]) <= 1, "at most the batch that was running goes before"
    assert len(waited) > 100


def test_lowest_priority_is_not_starved() -> None:
    """The oldest call leads one batch in eight, however much of higher priority keeps coming."""
    low = Item("low", priority=-10)
    lanes = lanes_with(low, limits=LIMITS._replace(batch_rows=1))
    for turn in range(1, OLDEST_EVERY + 1):
        lanes.offer(Item("high", priority=10, arrival_time=float(turn)), 1, float(turn))
        if low in next_calls(lanes, float(turn)):
            return
    pytest.fail("the call of low priority never ran")


def test_ceiling_of_a_lane_shrinks_and_recovers() -> None:
    lanes = lanes_with(*(Item() for _ in range(8)))
    first = lanes.take(0.0)
    assert first is not None and len(first.calls) == 8
    lanes.bear_at_most("a", 2)
    sizes = []
    for _ in range(12):
        for _ in range(8):
            lanes.offer(Item(), 1000, 0.0)
        batch = lanes.take(0.0)
        assert batch is not None
        sizes.append(len(batch.calls))
        lanes.charge(batch, 0.01)
        while lanes.take(0.0):
            pass
    assert sizes[0] == 2 and sizes == sorted(sizes) and sizes[-1] == 8


def test_delay_waits_for_company_but_not_for_ever() -> None:
    lanes = lanes_with(Item(arrival_time=1.0), limits=LIMITS._replace(max_delay_seconds=0.5))
    assert lanes.take(1.2) is None
    assert lanes.wake_at(1.2) == 1.5
    assert len(next_calls(lanes, 1.5)) == 1


def test_full_batch_does_not_wait() -> None:
    items = [Item(arrival_time=1.0) for _ in range(8)]
    lanes = lanes_with(*items, limits=LIMITS._replace(max_delay_seconds=0.5))
    assert len(next_calls(lanes, 1.0)) == 8


def test_calls_that_are_gone_are_not_kept() -> None:
    """A million calls with far deadlines must not pile up behind one that waits."""
    lanes = lanes_with(Item("waits", priority=-10, deadline=1.0))
    for turn in range(30_000):
        item = Item(deadline=1e9, arrival_time=float(turn))
        lanes.offer(item, 8, 0.0)
        lanes.withdraw(item, 0.0)
    assert len(lanes._deadlines) < 10_000 and len(lanes._arrivals) < 10_000
