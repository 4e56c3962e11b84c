"""Items with a count in lanes: each of their calls waits, runs, expires and leaves once, and limits count calls."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from layerwire_server.worker.lanes.lanes import Full, Lanes
from tests.worker.lanes.test_lanes import LIMITS, Item, lanes_with, next_calls

MAX_ROWS = 6


class GroupsMachine(RuleBasedStateMachine):
    """Random groups beside a plain list of the calls that wait, by number."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[Item] = Lanes(LIMITS)
        self.nbytes: dict[int, int] = {}
        self.waiting: set[int] = set()
        self.now = 0.0

    @rule(
        key=st.sampled_from("ab"), caller=st.integers(0, 1), count=st.integers(1, 30),
        rows=st.integers(0, 8), nbytes=st.integers(0, 30), cost=st.sampled_from([0.0, 0.5, 7.0, 25.0]),
        priority=st.integers(-1, 1), within=st.sampled_from([math.inf, 1.0, 2.0]),
    )  # fmt: skip
    def offer(
        self, key: str, caller: int, count: int, rows: int, nbytes: int, cost: float, priority: int, within: float
    ) -> None:
        deadline = self.now + within
        item = Item(
            key, caller=caller, count=count, rows=rows, nbytes=nbytes, cost=cost, priority=priority, deadline=deadline,
            arrival_time=self.now,
        )  # fmt: skip
        calls = list(item.calls)
        self.nbytes |= dict.fromkeys(calls, nbytes)
        room = LIMITS.queue_calls - len(self.waiting)
        if nbytes:
            spare = LIMITS.queue_bytes - sum(self.nbytes[call] for call in self.waiting)
            room = min(room, max(spare // nbytes, 0 if self.waiting else 1))
        try:
            self.lanes.offer(item, MAX_ROWS, self.now)
        except Full as full:
            assert full.rest.calls == calls[max(room, 0) :], "the first of them wait, as many as there is room for"
            calls = calls[: max(room, 0)]
        else:
            assert room >= count
        self.waiting.update(calls)

    def items(self) -> list[Item]:
        return list(self.lanes.waiting_calls())

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.items()))
        assert self.lanes.withdraw(item, self.now)
        assert not self.lanes.withdraw(item, self.now)
        self.waiting.difference_update(item.calls)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw_some(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.items()))
        stay = data.draw(st.lists(st.booleans(), min_size=item.count, max_size=item.count))
        pieces = [item.part(index, index + 1) for index in range(item.count) if stay[index]]
        self.lanes.replace(item, pieces, self.now)
        self.waiting.difference_update(call for call, stays in zip(item.calls, stay, strict=True) if not stays)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for item in self.lanes.expire(self.now):
            assert item.deadline <= self.now
            self.waiting.difference_update(item.calls)

    @rule()
    def run(self) -> None:
        batch = self.lanes.take(self.now)
        assert (batch is None) == (not self.waiting)
        if batch is None:
            return
        calls = [call for item in batch.calls for call in item.calls]
        assert len(set(calls)) == len(calls) == batch.call_count
        assert self.waiting.issuperset(calls), "no call runs twice"
        assert {item.key for item in batch.calls} == {batch.key}
        assert batch.rows == sum(item.rows * item.count for item in batch.calls)
        if len(calls) > 1:
            assert batch.rows <= MAX_ROWS
            assert sum(item.nbytes * item.count for item in batch.calls) <= LIMITS.batch_bytes
            assert sum(item.cost * item.count for item in batch.calls) <= LIMITS.batch_cost
        self.waiting.difference_update(calls)
        if batch.reason == "drained":
            assert all(item.key != batch.key for item in self.items())
        self.lanes.charge(batch, 0.01)

    @invariant()
    def counts_agree(self) -> None:
        calls = Counter(call for item in self.items() for call in item.calls)
        assert calls == Counter(self.waiting), "nothing is lost, nothing is twice"
        assert self.lanes.calls == len(self.waiting)
        assert self.lanes.nbytes == sum(item.nbytes * item.count for item in self.items())
        assert len(self.lanes) == len({item.key for item in self.items()})
        assert self.lanes.wake_at(self.now) == min((item.deadline for item in self.items()), default=math.inf)

    def teardown(self) -> None:
        while self.waiting:
            self.run()


TestGroupsMachine = GroupsMachine.TestCase
TestGroupsMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_what_a_batch_has_no_room_for_waits_on_in_its_place() -> None:
    lanes = lanes_with(Item(count=11), Item(count=2))
    numbers = [call for item in lanes.waiting_calls() for call in item.calls]
    batches = [[call for item in next_calls(lanes) for call in item.calls] for _ in range(2)]
    assert batches == [numbers[:8], numbers[8:]]


def test_pieces_keep_their_place() -> None:
    lanes = lanes_with(Item(count=4), Item(), max_rows=1)
    first, last = lanes.waiting_calls()
    numbers = [*first.calls, *last.calls]
    lanes.replace(first, [first.part(0, 1), first.part(2, 4)], 0.0)
    order = [call for _ in range(4) for item in next_calls(lanes) for call in item.calls]
    assert order == [number for number in numbers if number != numbers[1]]


@pytest.mark.parametrize("count", [1, 4])
def test_a_caller_pays_for_each_call_of_a_group(count: int) -> None:
    """Two callers, each with four calls waiting at any time, the one as single calls or as a group."""
    lanes: Lanes[Item] = Lanes(LIMITS._replace(batch_rows=4))
    runs: Counter[str] = Counter()
    now = 0.0
    for _ in range(81):
        waiting = {item.key for item in lanes.waiting_calls()}
        for caller, size in (("one", count), ("other", 4)):
            if caller not in waiting:
                for _ in range(4 // size):
                    lanes.offer(Item(caller, caller=hash(caller), count=size, arrival_time=now), 4, now)
        batch = lanes.take(now)
        assert batch is not None
        assert batch.call_count == 4
        runs[batch.key] += 1
        now += 1.0
        lanes.charge(batch, 1.0)
    assert abs(runs["one"] - runs["other"]) <= 3


def test_an_item_that_waits_alone_leaves_nothing_but_its_debts() -> None:
    lanes: Lanes[Item] = Lanes(LIMITS)
    for _ in range(100):
        lanes.offer(Item(deadline=1e9), 8, 0.0)
        batch = lanes.take(0.0)
        assert batch is not None
        lanes.charge(batch, 0.5)
    assert not lanes._deadlines and not lanes._arrivals
    lanes.offer(Item("a", caller=0), 8, 0.0)
    lanes.offer(Item("b", caller=1), 8, 0.0)
    assert [item.key for item in next_calls(lanes)] == ["b"], "who was served owes"
