"""When calls expire: a heap of deadlines under one timer of the loop, so that a call costs no timer of its own.

It knows calls by their deadline only.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Protocol


class Expiring(Protocol):
    """What has a deadline, in seconds of time.monotonic(), and a number of its own."""

    id: int
    deadline: float
    finished: bool


_NEVER = math.inf
_SPARE = 1024  # finished calls that the heap may hold before it is swept


class Deadlines:
    """Calls `expire` with each call whose deadline passes before it is finished."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Expiring], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, int, Expiring]] = []
        self._sweep_at = _SPARE
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline = math.inf

    def add(self, call: Expiring) -> None:
        """Watches a call."""
        deadline = call.deadline
        if deadline == _NEVER:
            return
        heappush(self._heap, (deadline, call.id, call))
        if deadline < self._timer_deadline:
            self._set_timer(deadline)
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def close(self) -> None:
        """Watches nothing any more."""
        self._heap.clear()
        self._clear_timer()

    def _sweep(self) -> None:
        # Most calls are answered long before they expire: without this, those of the last 30 seconds would pile up.
        self._heap = [item for item in self._heap if not item[2].finished]
        heapify(self._heap)
        self._sweep_at = 2 * len(self._heap) + _SPARE

    def _set_timer(self, deadline: float) -> None:
        self._clear_timer()
        self._timer_deadline = deadline
        self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0.0), self._fire)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_deadline = math.inf

    def _fire(self) -> None:
        self._clear_timer()
        now = time.monotonic()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].finished):
            call = heappop(self._heap)[2]
            if not call.finished:
                self._expire(call)
        if self._heap:
            self._set_timer(self._heap[0][0])
