"""Finds the calls whose deadline passes before their answer comes.

It knows their deadlines and the loop's timer; nothing else of calls.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from layerwire.transport.call import Call

_SPARE = 1024  # finished calls that may be held before they are swept out


class Deadlines:
    """Calls `expire` with each call whose deadline passes before it is finished.

    All under one timer of the loop, so that a call costs no timer of its own. Nearly all calls have the same timeout,
    so that their deadlines come in order: those stand in a line, and only the others in a heap.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Call], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._line: deque[Call] = deque()
        self._heap: list[tuple[float, int, Call]] = []
        self._sweep_at = _SPARE
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline = math.inf

    def add(self, call: Call) -> None:
        """Watches a call."""
        deadline = call.deadline
        if deadline == math.inf:
            return
        line = self._line
        while line and line[0].is_finished:
            line.popleft()
        if not line or deadline >= line[-1].deadline:
            line.append(call)
        else:
            heappush(self._heap, (deadline, call.id, call))
        if deadline < self._timer_deadline:
            self._set_timer(deadline)
        if len(self._heap) + len(line) > self._sweep_at:
            self._sweep()

    def close(self) -> None:
        """Watches nothing any more."""
        self._line.clear()
        self._heap.clear()
        self._clear_timer()

    def _sweep(self) -> None:
        # Most calls are answered long before they expire: without this, those of the last 30 seconds would pile up
        # behind one that isn't.
        self._line = deque(call for call in self._line if not call.is_finished)
        self._heap = [item for item in self._heap if not item[2].is_finished]
        heapify(self._heap)
        self._sweep_at = 2 * (len(self._heap) + len(self._line)) + _SPARE

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
        while (call := self._first()) is not None and (call.deadline <= now or call.is_finished):
            if self._line and self._line[0] is call:
                self._line.popleft()
            else:
                heappop(self._heap)
            if not call.is_finished:
                self._expire(call)
        if call is not None:
            self._set_timer(call.deadline)

    def _first(self) -> Call | None:
        """The call whose deadline comes first."""
        if not self._heap:
            return self._line[0] if self._line else None
        first = self._heap[0][2]
        return self._line[0] if self._line and self._line[0].deadline <= first.deadline else first
