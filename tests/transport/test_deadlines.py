"""Calls expire in order, and those that are over are let go."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass

from layerwire.transport.engine import Deadlines


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


async def test_finished_calls_do_not_pile_up_behind_one_that_waits():
    deadlines = Deadlines(asyncio.get_running_loop(), lambda call: None)
    now = time.monotonic()
    deadlines.add(Timed(0, now + 900))
    for number in range(1, 20_000):
        deadlines.add(Timed(number, now + 1000 - number % 2, is_finished=True))
        assert len(deadlines._line) + len(deadlines._heap) <= 1027
    deadlines.close()
