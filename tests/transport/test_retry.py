"""Which calls are sent again, when, and how many of them."""

from __future__ import annotations

import random

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire import errors
from layerwire.transport import retry


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
def test_connections_that_break(code, details, expected):
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


@pytest.mark.parametrize(("error", "tries", "seconds_left", "again"), DELAYS.values(), ids=DELAYS)
def test_delay(error, tries, seconds_left, again):
    delay = retry.Budget(2).delay_seconds(error, tries, seconds_left, random.Random(0))
    assert (delay is not None) is again
    if again:
        assert (error.retry_after_seconds or 0) <= delay < seconds_left
