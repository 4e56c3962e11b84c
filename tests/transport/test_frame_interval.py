"""How long frames wait for company: not at all where answers are quick, a little where they take long."""

from __future__ import annotations

import math

import pytest

from layerwire.transport.frame_interval import FrameInterval


def answered(interval: FrameInterval, call_id: int, seconds: float, now: float, *, success: bool = True) -> None:
    """A frame that leaves so long before now is answered now."""
    interval.observe_frame(call_id, now - seconds)
    interval.observe_answer((call_id,), now, success=success)


@pytest.mark.parametrize(("seconds", "wait"), [(0.001, 0.0), (0.06, 0.0), (0.128, 0.002), (0.4, 0.00625), (9.0, 0.008)])
def test_the_wait_is_a_small_share_of_what_answers_take(seconds, wait):
    interval = FrameInterval()
    answered(interval, 1, seconds, 10.0)
    interval.observe_frame(2, 10.0)
    assert interval.wait_seconds(math.inf, 10.0) == pytest.approx(wait)
    assert interval.wait_seconds(math.inf, 10.0 + FrameInterval.MOST_SECONDS) == 0.0


def test_one_quick_answer_ends_the_wait_and_slow_ones_bring_it_back_later():
    interval = FrameInterval()
    answered(interval, 1, 0.5, 10.0)
    answered(interval, 2, 0.002, 10.1)
    assert not interval.is_long
    answered(interval, 3, 0.5, 10.9)
    assert not interval.is_long
    answered(interval, 4, 0.5, 11.2)
    assert interval.is_long


def test_refusals_say_nothing():
    interval = FrameInterval()
    answered(interval, 1, 0.5, 10.0)
    answered(interval, 2, 0.001, 10.1, success=False)
    assert interval.is_long


def test_a_call_that_is_never_answered_is_not_waited_for():
    interval = FrameInterval()
    interval.observe_frame(1, 10.0)
    answered(interval, 2, 0.5, 11.0)
    assert not interval.is_long  # only one is watched at a time
    answered(interval, 3, 0.5, 12.0 + FrameInterval.UNANSWERED_SECONDS)
    assert interval.is_long
    interval.observe_answer((), 15.0, success=True)


def test_a_near_deadline_waits_for_no_company():
    interval = FrameInterval()
    answered(interval, 1, 0.5, 10.0)
    interval.observe_frame(2, 10.0)
    assert interval.wait_seconds(10.05, 10.0) == 0.0
    assert interval.wait_seconds(11.0, 10.0) > 0.0
