"""A device that runs two batches at once: what they take, how long others wait for them, and who is let in by it."""

from __future__ import annotations

import pytest

from layerwire_server.worker.lanes.lane import Full
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.lanes.waiting_work import RunningWork
from tests.worker.lanes.simulation import LIMITS, Item, Kind, simulate
from tests.worker.lanes.test_overload import LOADS, SECONDS, capacity


@pytest.mark.parametrize("multiple", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("kinds", LOADS.values(), ids=LOADS)
def test_goodput_under_overload_is_the_capacity(kinds: list[Kind], multiple: float) -> None:
    rate = capacity(kinds)
    outcome = simulate(kinds, multiple * rate, SECONDS, slots=2)
    assert outcome.in_time.total() >= 0.85 * rate * SECONDS
    assert outcome.late.total() <= 0.1 * outcome.in_time.total()
    assert outcome.refused.total() > outcome.expired.total()


@pytest.mark.parametrize("kinds", LOADS.values(), ids=LOADS)
def test_hardly_anybody_is_refused_while_there_is_time(kinds: list[Kind]) -> None:
    outcome = simulate(kinds, 0.5 * capacity(kinds), SECONDS, slots=2)
    assert outcome.in_time and not outcome.expired and not outcome.late
    assert outcome.refused.total() <= 0.01 * outcome.in_time.total()


def test_batches_that_run_at_once_share_the_time() -> None:
    work = RunningWork()
    work.wait(10.0)
    work.begin("a", 1.0, 10.5, counts_wait=True)
    assert work.seconds_left(10.5) == pytest.approx(1.0)
    work.begin("b", 1.0, 11.0, counts_wait=True)
    assert (len(work), work.seconds_left(11.0)) == (2, pytest.approx(1.5))
    assert work.end("a", 12.0) == pytest.approx(0.5 + 0.5 + 0.5)  # its wait, by itself, half of what both had
    assert work.seconds_left(12.0) == pytest.approx(0.5)
    work.wait(12.0)
    assert work.end("b", 12.5) == pytest.approx(0.5 + 0.5)
    assert (len(work), work.seconds_left(12.5)) == (0, 0.0)


def test_one_that_ends_late_leaves_the_other_all_that_it_may_take() -> None:
    work = RunningWork()
    work.wait(0.0)
    work.begin("a", 1.0, 0.0, counts_wait=False)
    work.begin("b", 2.0, 0.0, counts_wait=False)
    work.end("b", 0.5)  # sooner than thought
    assert work.seconds_left(0.5) == pytest.approx(1.0)
    assert work.seconds_left(9.0) == 0.0


def _trained(kind: Kind) -> tuple[Lanes[Item], float]:
    """Lanes that have seen two batches of a second's work at once, a few times; and the time."""
    lanes: Lanes[Item] = Lanes(LIMITS)
    now = 0.0
    for _ in range(4):
        batches = []
        for _ in range(2):
            lanes.offer(Item(kind, now), kind.max_rows, now)
            batches.append(lanes.take(now))
        now += 2.0
        for batch in batches:
            assert batch is not None
            lanes.observe(batch, now)
    return lanes, now


def test_what_waits_waits_for_both_of_them() -> None:
    """Each of two batches takes a second alone and two beside the other, so a third ends after three."""
    kind = Kind("alone", 1.0, 0.0, max_rows=1, timeout=3600.0)
    lanes, now = _trained(kind)
    for _ in range(2):
        lanes.offer(Item(kind, now), 1, now)
        assert lanes.take(now) is not None
    lanes.offer(Item(Kind("alone", 1.0, 0.0, max_rows=1, timeout=4.5), now), 1, now)
    soon, later = (Item(Kind("alone", 1.0, 0.0, max_rows=1, timeout=timeout), now) for timeout in (5.0, 7.0))
    with pytest.raises(Full) as caught:  # two that run, and one that waits: three seconds, over half of five
        lanes.offer(soon, 1, now)
    assert caught.value.reason == "seconds"
    lanes.offer(later, 1, now)


def test_what_would_end_too_late_beside_another_batch_is_not_begun() -> None:
    kind = Kind("alone", 1.0, 0.0, max_rows=1, timeout=3600.0)
    for others, is_begun in ((0, True), (1, False)):
        lanes, now = _trained(kind)
        for _ in range(others):
            lanes.offer(Item(kind, now), 1, now)
            assert lanes.take(now) is not None
        lanes.offer(Item(Kind("alone", 1.0, 0.0, max_rows=1, timeout=1.5), now), 1, now)
        assert (lanes.take(now) is not None) is is_begun
        assert lanes.has_late is not is_begun
