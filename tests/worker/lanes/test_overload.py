"""Lanes under overload, on a virtual clock: calls beyond what can be served cost those that can nothing."""

from __future__ import annotations

import pytest

from layerwire_server.worker.lanes.lane import Full
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.lanes.pace import Pace
from tests.worker.lanes.simulation import LIMITS, Item, Kind, simulate

POOLED = Kind("pooled", batch_seconds=0.02, row_seconds=0.001)
LOADS = {
    "alone": [Kind("alone", 0.0, 0.02, max_rows=1)],
    "batches": [POOLED],
    "batches that cost the same whatever is in them": [Kind("flat", 0.04, 1e-6)],
    "deadlines of 0.2 s": [Kind("soon", 0.01, 0.0005, timeout=0.2)],
    "two lanes": [POOLED, Kind("alone", 0.0, 0.02, share=0.1, max_rows=1)],
    "many deadlines in one lane": [
        POOLED,
        Kind("pooled", 0.02, 0.001, share=0.2, timeout=0.3),
        Kind("pooled", 0.02, 0.001, share=0.2, timeout=10.0),
    ],
}
SECONDS = 6.0


def capacity(kinds: list[Kind]) -> float:
    """Calls a second, in the shares of the load, in full batches."""
    return sum(kind.share for kind in kinds) / sum(kind.share / kind.capacity() for kind in kinds)


@pytest.mark.parametrize("multiple", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("kinds", LOADS.values(), ids=LOADS)
def test_goodput_under_overload_is_the_capacity(kinds: list[Kind], multiple: float) -> None:
    rate = capacity(kinds)
    outcome = simulate(kinds, multiple * rate, SECONDS)
    assert outcome.in_time.total() >= 0.9 * rate * SECONDS
    assert outcome.late.total() <= 0.02 * outcome.in_time.total(), "what runs is of use"
    assert outcome.refused.total() > outcome.expired.total(), "who can't be served learns it at once"
    assert all(0.01 <= seconds <= 5.0 for seconds in outcome.retry_seconds)


@pytest.mark.parametrize("kinds", LOADS.values(), ids=LOADS)
def test_nobody_is_refused_while_there_is_time(kinds: list[Kind]) -> None:
    outcome = simulate(kinds, 0.5 * capacity(kinds), SECONDS)
    assert outcome.in_time and not outcome.refused and not outcome.expired and not outcome.late


def test_a_stall_costs_its_own_time() -> None:
    """The machine stands still for two seconds: what waited is late, and what comes after is served as before."""
    rate = POOLED.capacity()
    stalls = iter([2.0])
    outcome = simulate([POOLED], 1.5 * rate, SECONDS, hiccup=lambda now: next(stalls, 0.0) if now > 3.0 else 0.0)
    assert outcome.in_time.total() >= 0.9 * rate * (SECONDS - 2.0 - POOLED.timeout)


@pytest.mark.parametrize("hiccups", [1, 4])
def test_a_lane_that_was_slow_is_tried_again(hiccups: int) -> None:
    """Its first batches take ten seconds, such as while something compiles; its calls have half a second."""
    slow = iter([10.0] * hiccups)
    kind = Kind("a", 0.001, 0.001, timeout=0.5)
    outcome = simulate([kind], 50.0, 60.0 + 10.0 * hiccups, hiccup=lambda _: next(slow, 0.0))
    assert outcome.in_time.total() >= 0.8 * 50.0 * 60.0


def test_a_flood_of_one_caller_leaves_others_their_share() -> None:
    flood = Kind("flood", 0.0, 0.01, share=100.0, max_rows=1)
    quiet = Kind("quiet", 0.0, 0.01, share=1.0, caller=1, max_rows=1, timeout=0.3)
    outcome = simulate([flood, quiet], 606.0, SECONDS)
    assert outcome.in_time["quiet"] >= 0.9 * 6.0 * SECONDS
    assert outcome.in_time["flood"] >= 0.9 * 94.0 * SECONDS


def test_higher_priority_is_admitted_before_lower() -> None:
    low = Kind("low", 0.0, 0.01, max_rows=1)
    high = Kind("high", 0.0, 0.01, share=0.25, max_rows=1, priority=1, timeout=0.3)
    outcome = simulate([low, high], 300.0, SECONDS)
    assert outcome.in_time["high"] >= 0.85 * 60.0 * SECONDS, "one batch in eight is the oldest call's"
    assert outcome.in_time.total() >= 0.9 * 100.0 * SECONDS


def test_a_batch_ends_where_its_first_deadline_does() -> None:
    lanes: Lanes[Item] = Lanes(LIMITS)
    kind, now = Kind("a", 0.01, 0.01, timeout=1e9), 0.0
    for size in (1, 2, 4, 8):
        for _ in range(size):
            lanes.offer(Item(kind, now), 64, now)
        batch = lanes.take(now)
        assert batch is not None and len(batch.calls) == size
        now += 0.01 + 0.01 * size
        lanes.observe(batch, now)
    for timeout in (0.105, 5.0, *[1e9] * 20):
        lanes.offer(Item(Kind("a", 0.01, 0.01, timeout=timeout), now), 64, now)
    batch = lanes.take(now)
    assert batch is not None
    assert len(batch.calls) in (8, 9) and batch.reason == "deadline"


def test_what_would_end_after_its_deadline_is_not_begun() -> None:
    lanes: Lanes[Item] = Lanes(LIMITS)
    now = 0.0
    for _ in range(4):
        lanes.offer(Item(Kind("a", 0, 0, timeout=100.0), now), 1, now)
        batch = lanes.take(now)
        assert batch is not None
        now += 1.0
        lanes.observe(batch, now)
    late, timely = (Item(Kind("a", 0, 0, timeout=timeout), now) for timeout in (0.9, 50.0))
    lanes.offer(late, 1, now)
    lanes.offer(timely, 1, now)
    batch = lanes.take(now)
    assert batch is not None and batch.calls == [timely]
    assert [lanes.has_late, lanes.expire(now), lanes.has_late] == [True, [late], False]
    lanes.offer(Item(Kind("a", 0, 0, timeout=50.0), now), 1, now)
    with pytest.raises(Full) as full:
        lanes.offer(Item(Kind("a", 0, 0, timeout=0.9), now), 1, now)
    assert full.value.reason == "seconds" and full.value.rest.deadline == now + 0.9
    lanes.offer(Item(Kind("a", 0, 0, timeout=float("inf")), now), 1, now)


def test_a_burst_after_lone_calls_is_let_in() -> None:
    """What a lone call takes says little of what it takes in company."""
    lanes: Lanes[Item] = Lanes(LIMITS)
    kind, now = Kind("a", 0.0004, 0.00001), 0.0
    for _ in range(100):
        lanes.offer(Item(kind, now), 4096, now)
        batch = lanes.take(now)
        assert batch is not None
        now += 0.00041
        lanes.observe(batch, now)
    for _ in range(4096):
        lanes.offer(Item(kind, now), 4096, now)
    assert lanes.calls == 4096


def test_a_pace_is_a_line_through_what_batches_took() -> None:
    pace = Pace()
    for rows in (1, 10, 100, 10, 1, 50):
        pace.observe(rows, 0.01 + 0.001 * rows, 0.0)
    assert pace.expected_seconds(200, 0.0) == pytest.approx(0.21, rel=0.05)
    assert pace.rows_within(0.21, 0.0) == pytest.approx(200, rel=0.05)
    assert pace.expected_seconds(200, 100.0) < 1e-9, "an old prediction is none"


def test_deadlines_may_be_as_far_as_floats_go() -> None:
    lanes: Lanes[Item] = Lanes(LIMITS)
    for timeout in (1e-300, 1e308, float("inf"), 1.0):
        lanes.offer(Item(Kind("a", 0, 0, timeout=timeout), 1.0), 1, 1.0)
        batch = lanes.take(1.0)
        assert batch is not None
        lanes.observe(batch, 2.0)
