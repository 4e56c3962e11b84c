"""Calls that a server would refuse aren't sent: which, how many, and what their callers are told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

import layerwire
from layerwire import errors
from layerwire.transport.retry import Throttle
from tests.transport.rows import ROW

BUSY = errors.ResourceExhaustedError("relu: too much waits", retry_after_seconds=0.1)


@pytest.fixture(params=[False, True], ids=["singles", "groups"])
def takes_groups(request):
    return request.param


@pytest.mark.parametrize(
    "error",
    [errors.ResourceExhaustedError("too large"), errors.UnavailableError("x"), errors.InvalidArgumentError("x")],
    ids=["for-good", "unavailable", "wrong"],
)
def test_only_who_asks_for_time_is_given_it(error):
    throttle = Throttle(random.Random(0))
    throttle.observe_refusal("key", error, 0.0)
    assert not throttle


def test_a_few_calls_are_never_kept_back():
    throttle = Throttle(random.Random(0))
    for number in range(100):
        now = number / 10
        throttle.observe_refusal("key", BUSY, now)
        assert throttle.refusal("key", now) is None


def test_calls_of_another_key_and_calls_after_the_time_go_out():
    throttle = Throttle(random.Random(0))
    throttle.observe_refusal("key", BUSY, 0.0)
    outcomes = [throttle.refusal("key", 0.0) for _ in range(200)]
    assert 0 < sum(error is None for error in outcomes) < 100
    error = next(error for error in outcomes if error is not None)
    assert error.message == BUSY.message
    assert error.retry_after_seconds == pytest.approx(0.1)
    assert throttle.refusal("other", 0.0) is None
    assert all(throttle.refusal("key", 0.1) is None for _ in range(200))
    assert throttle.refusal("key", 0.1 + Throttle.MEMORY_SECONDS) is None
    assert not throttle


def test_keys_are_bounded():
    throttle = Throttle(random.Random(0))
    for key in range(2 * Throttle.MOST_KEYS):
        throttle.observe_refusal(key, BUSY, 0.0)
    for _ in range(200):
        assert throttle.refusal(0, 0.0) is None  # forgotten
    assert any(throttle.refusal(2 * Throttle.MOST_KEYS - 1, 0.0) for _ in range(200))


@pytest.mark.parametrize("times", [1.5, 3.0, 6.0, 20.0])
def test_a_server_over_capacity_is_kept_busy_and_not_much_more(times):
    """It serves 1,000 calls/s after half a second in its queue, has room for 500, and becomes twice as fast."""
    throttle, chance = Throttle(random.Random(1)), random.Random(2)
    waiting: list[float] = []
    sent, served = Counter(), Counter()
    room = 0.0
    for step in range(20_000):
        now, second = step / 1000, step // 1000
        capacity = 1.0 if second < 10 else 2.0
        for _ in range(int(times * capacity) + (chance.random() < times * capacity % 1)):
            if throttle and throttle.refusal("key", now) is not None:
                continue
            sent[second] += 1
            if len(waiting) < 500 * capacity:
                waiting.append(now)
            else:
                throttle.observe_refusal("key", BUSY, now)
        room += capacity
        while room >= 1.0 and waiting:
            waiting.pop(0)
            room -= 1.0
            served[second] += 1
            throttle.observe_answers("key", 1, now)
        room = min(room, 1.0)
    for seconds, capacity in ((range(4, 10), 1000), (range(15, 20), 2000)):
        for second in seconds:
            assert served[second] >= 0.98 * capacity
            assert sent[second] <= 1.4 * capacity


async def test_a_client_that_was_told_to_wait_sends_little(serve):
    refused = []

    def answer(stream, call):
        if call.activate.operator.WhichOneof("operator") == "relu":
            refused.append(call.id)
            stream.refuse(call, errors.ResourceExhaustedError("relu: too much waits", retry_after_seconds=30.0))
        else:
            stream.reply(call)

    server = serve(answer)
    async with layerwire.AsyncClient(server.address) as lw:

        async def outcome():
            with pytest.raises(errors.ResourceExhaustedError, match="^relu: too much waits$") as caught:
                await lw.relu(ROW)
            return caught.value

        outcomes = [await outcome() for _ in range(300)]
        assert Throttle.SPARE <= len(refused) < 150
        assert all(error.operator == "relu" and 0.0 < error.retry_after_seconds <= 30.0 for error in outcomes)
        await asyncio.gather(*(lw.sigmoid(ROW) for _ in range(300)))
